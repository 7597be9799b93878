"""A model folder's tokenizer, in the project's chat format where the folder has one. Needs no torch."""

import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from stages.core.chat import chat_template
from stages.errors import InputError, ParamsError
from stages.runtime.files import first_line, write_text

TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"
EOT_KEY = "eot_token"  # our key in tokenizer_config.json: its text; a folder without it is an untuned base


class ChatTokenizer:
    """Text to ids and back. Special tokens that occur in a text are read as text: data cannot end a turn."""

    def __init__(self, tokenizer: Tokenizer, config: dict[str, Any], *, has_new_eot: bool = False) -> None:
        self.config = config
        self.has_new_eot = has_new_eot  # the EOT token has no trained embedding yet
        self._tokenizer = tokenizer
        self.prefix_ids: list[int] = tokenizer.encode("").ids  # what the base puts before a text
        if self.prefix_ids and self.prefix_ids[-1] == self._id(config.get("eos_token")):
            self.prefix_ids.pop()
        tokenizer.encode_special_tokens = True

    @property
    def eos_id(self) -> int | None:
        """Id of the base's end-of-sequence token."""
        return self._id(self.config.get("eos_token"))

    @property
    def eot_id(self) -> int | None:
        """Id of the end-of-turn token; None for an untuned base."""
        return self._id(self.config.get(EOT_KEY))

    @property
    def stop_ids(self) -> frozenset[int]:
        """Ids that end an answer."""
        return frozenset(i for i in (self.eot_id, self.eos_id) if i is not None)

    def encode(self, text: str) -> list[int]:
        """Ids of a text, with no special token added and none read from it."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, ids: list[int]) -> str:
        """Text of ids, special tokens left out."""
        text: str = self._tokenizer.decode(ids, skip_special_tokens=True)
        return text

    def show(self, ids: list[int]) -> str:
        """Text of ids with special tokens written out, for people."""
        text: str = self._tokenizer.decode(ids, skip_special_tokens=False)
        return text

    def finish_reason(self, stop_id: int | None) -> str:
        """Why an answer ended: eot, eos or length."""
        if stop_id is None:
            return "length"
        return "eot" if stop_id == self.eot_id else "eos"

    def with_eot(self, eot: str) -> "ChatTokenizer":
        """The same tokenizer with an end-of-turn token, new unless the base has it already.

        Raises:
            ParamsError: the token is the base's EOS, BOS or padding, which mean something else.
        """
        taken = [key for key in ("eos_token", "bos_token", "pad_token") if _text(self.config.get(key)) == eot]
        if taken:
            raise ParamsError(
                f"params.yaml: render.eot: must differ from the base's {taken[0]}, got {eot!r}; choose another"
            )
        tokenizer = Tokenizer.from_str(self._tokenizer.to_str())
        is_new = tokenizer.token_to_id(eot) is None
        tokenizer.add_special_tokens([AddedToken(eot, special=True, normalized=False)])
        config = {**self.config, EOT_KEY: eot, "chat_template": chat_template(eot)}
        return ChatTokenizer(tokenizer, config, has_new_eot=is_new)

    def save(self, folder: Path) -> None:
        """Write tokenizer.json and tokenizer_config.json.

        The class is named as the general fast one: a LLaMA-specific class would build its own normaliser and encode
        other ids than tokenizer.json says.
        """
        config = {key: value for key, value in self.config.items() if key not in ("added_tokens_decoder", "auto_map")}
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
        write_text(folder / TOKENIZER_FILE, self._tokenizer.to_str(pretty=True))
        write_text(folder / CONFIG_FILE, json.dumps(config, indent=2, ensure_ascii=False, sort_keys=True) + "\n")

    def _id(self, token: object) -> int | None:
        text = _text(token)
        found: int | None = None if text is None else self._tokenizer.token_to_id(text)
        return found


def load_tokenizer(folder: Path) -> ChatTokenizer:
    """Read a model folder's tokenizer.

    Raises:
        InputError: tokenizer.json is missing or is none.
    """
    path = folder / TOKENIZER_FILE
    if not path.is_file():
        raise InputError(
            f"{path}: no such file; the model folder needs a fast tokenizer, save it with transformers once"
        )
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises no narrower class
        raise InputError(f"{path}: not a tokenizer ({first_line(error)}); fetch it again") from None
    config_path = folder / CONFIG_FILE
    try:
        config = json.loads(config_path.read_text(encoding="utf-8")) if config_path.is_file() else {}
    except ValueError as error:
        raise InputError(f"{config_path}: not JSON ({first_line(error)}); fetch it again") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return ChatTokenizer(tokenizer, config)


def _text(token: object) -> str | None:
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else None
