"""A model folder's tokenizer, in the project's chat format where the folder has one. Needs no torch."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from stages.common.errors import InputError, ParamsError
from stages.common.files import first_line, write_text
from stages.core.chat import chat_template

TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"
EOT_KEY = "eot_token"  # our key in tokenizer_config.json: its text; a folder without it is an untuned base

_MEANINGS = ("eos_token", "bos_token", "pad_token", "unk_token")


class ChatTokenizer:
    """Text to ids and back. Special tokens that occur in a text are read as text: data cannot end a turn."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        config: dict[str, Any],
        *,
        model_ids: Mapping[int, str] | None = None,
        has_new_eot: bool = False,
    ) -> None:
        self.config = config
        self.model_ids = dict(model_ids or {})  # what the model's own configs take a token for, by its id
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
        """The same tokenizer with an end-of-turn token, new unless the base has it already, and a chat template.

        Every utterance is encoded as a text of its own, also where it stands behind others. Servers encode a whole
        dialogue at once, so a tokenizer that treats the beginning of a text apart is made to do so for each utterance.

        Raises:
            ParamsError: the token is the base's EOS, BOS, padding or unknown token, which mean something else.
        """
        taken = [key for key in _MEANINGS if _text(self.config.get(key)) == eot]
        if self.config.get(EOT_KEY) != eot:  # in a folder of ours EOT ends an answer, as it should
            taken += [self.model_ids[i] for i in (self._tokenizer.token_to_id(eot),) if i in self.model_ids]
        if taken:
            raise ParamsError(
                f"params.yaml: render.eot: must differ from the base's {taken[0]}, got {eot!r}; choose another"
            )
        tokenizer = Tokenizer.from_str(_for_dialogues(self._tokenizer.to_str()))
        is_new = tokenizer.token_to_id(eot) is None
        tokenizer.add_special_tokens([AddedToken(eot, special=True, normalized=False)])
        specials = sorted(t.content for t in tokenizer.get_added_tokens_decoder().values() if t.special)
        prefix = "".join(str(tokenizer.id_to_token(i)) for i in self.prefix_ids)
        config = {
            **self.config, EOT_KEY: eot, "chat_template": chat_template(eot, prefix=prefix, specials=specials)
        }  # fmt: skip
        if _text(config.get("pad_token")) is None and self.eos_id is not None:
            config["pad_token"] = config["eos_token"]  # batches need one; EOT is neither
        return ChatTokenizer(tokenizer, config, model_ids=self.model_ids, has_new_eot=is_new)

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
    config = _json(folder / CONFIG_FILE)
    for key, value in _json(folder / "special_tokens_map.json").items():
        if config.get(key) is None:  # where older folders have them
            config[key] = value
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return ChatTokenizer(tokenizer, config, model_ids=_model_ids(folder))


def _json(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is no such file.

    Raises:
        InputError: it is something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({first_line(error)}); fetch it again") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: must be a JSON object, got {type(value).__name__}; fetch it again")
    return value


def _model_ids(folder: Path) -> dict[int, str]:
    """What config.json and generation_config.json take a token for, by its id."""
    found: dict[int, str] = {}
    for name in ("config.json", "generation_config.json"):
        config = _json(folder / name)
        for key in _MEANINGS:
            value = config.get(f"{key}_id")
            found |= {i: key for i in (value if isinstance(value, list) else [value]) if isinstance(i, int)}
    return found


def _for_dialogues(tokenizer: str) -> str:
    """A tokenizer.json by which each part between special tokens is encoded as it would be alone."""
    tree = json.loads(tokenizer)
    step = tree.get("pre_tokenizer") or {}
    for part in step.get("pretokenizers", [step]):
        if part.get("prepend_scheme") == "first":
            part["prepend_scheme"] = "always"
    for token in tree["added_tokens"]:
        if token["special"]:
            token["normalized"] = False  # found before the text is normalised, which then ends at it
    return json.dumps(tree)


def _text(token: object) -> str | None:
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else None
