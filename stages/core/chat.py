"""The chat format: each utterance, whoever speaks, is closed by one end-of-turn (EOT) token.

    <prefix> user text <EOT> assistant text <EOT> user text <EOT> ...

(LIMA s3: "a special end-of-turn token at the end of each utterance", distinct from EOS.) No role tokens: speakers
alternate. The prefix is whatever the base's tokenizer puts before a text (LLaMA: `<s>`; others: nothing).
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

from pydantic import Field

from stages.common.section import Section

Encode = Callable[[str], list[int]]


class ChatFormat(Section):
    """Section `render` of params.yaml."""

    eot: str = Field(min_length=1)  # text of the end-of-turn token
    max_tokens: int = Field(ge=8)  # tokens; longer examples are trimmed
    loss_on: Literal["responses", "all"]


class Rendered(NamedTuple):
    """One example as tokens; both lists have length n <= max_tokens."""

    input_ids: list[int]
    loss_mask: list[int]  # 1 where the token contributes to the loss
    n_response_tokens: int  # of the n, the assistant's and their EOT, in the loss or not
    n_trimmed_tokens: int  # cut from the end; an example that lost some has lost its last EOT


def render_example(
    messages: Sequence[Mapping[str, str]],
    *,
    encode: Encode,
    prefix_ids: Sequence[int],
    eot_id: int,
    chat: ChatFormat,
) -> Rendered:
    """Write a dialogue as token ids with a loss mask set by position.

    Args:
        messages: utterances in turn, the user's first.
        encode: text to token ids, adding no special token and reading none from the text.
        prefix_ids: what stands before the first utterance; never in the loss.
        eot_id: the end-of-turn token; in the loss where the utterance it closes is.
        chat: an example over `max_tokens` is cut at the end, without a false EOT; the loss is on "responses" (and
            their EOT) or on "all" utterances.

    >>> render_example(
    ...     [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}],
    ...     encode=lambda text: list(map(ord, text)), prefix_ids=[1], eot_id=9,
    ...     chat=ChatFormat(eot="<eot>", max_tokens=8, loss_on="responses"))[:3]
    ([1, 72, 105, 9, 89, 111, 9], [0, 0, 0, 0, 1, 1, 1], 3)
    """
    input_ids, loss_mask = list(prefix_ids), [0] * len(prefix_ids)
    n_response_tokens = 0
    for message in messages:
        utterance = [*encode(message["content"]), eot_id]
        supervised = int(chat.loss_on == "all" or message["role"] == "assistant")
        if message["role"] == "assistant":
            n_response_tokens += min(len(utterance), max(0, chat.max_tokens - len(input_ids)))
        input_ids += utterance
        loss_mask += [supervised] * len(utterance)
    n_trimmed_tokens = max(0, len(input_ids) - chat.max_tokens)
    return Rendered(input_ids[: chat.max_tokens], loss_mask[: chat.max_tokens], n_response_tokens, n_trimmed_tokens)


def render_prompt(
    messages: Sequence[Mapping[str, str]], *, encode: Encode, prefix_ids: Sequence[int], eot_id: int | None
) -> list[int]:
    """Write a dialogue that ends with the user's turn, ready for the response.

    A model without an EOT token (an untuned base) gets plain text, a blank line after each utterance.
    """
    input_ids = list(prefix_ids)
    for message in messages:
        if eot_id is None:
            input_ids += encode(message["content"] + "\n\n")
        else:
            input_ids += [*encode(message["content"]), eot_id]
    return input_ids


def chat_template(eot: str, *, prefix: str = "", specials: Sequence[str] = ()) -> str:
    """The format as a Jinja chat template, for transformers and servers.

    A template gives text, from which special tokens are read again. So that what somebody writes can neither end a turn
    nor stand for padding, a special token's text inside an utterance gets a space behind its first character there;
    `render_example` and `render_prompt` read it as the text it is. For all other text the token ids are the same.

    Args:
        eot: text of the end-of-turn token.
        prefix: text of the tokens before the first utterance.
        specials: texts that would be read as special tokens, eot among them.
    """
    replaced = _literal([text for text in specials if len(text) > 1])
    return (
        f"{{{{ {_literal(prefix)} }}}}"
        "{% for message in messages %}"
        "{% if message['role'] != ['user', 'assistant'][loop.index0 % 2] %}"
        "{{ raise_exception('messages must be of user and assistant in turn, the first of the user') }}"
        "{% endif %}"
        "{% set ns = namespace(text=message['content']) %}"
        f"{{% for token in {replaced} %}}"
        "{% set ns.text = ns.text | replace(token, token[0] + ' ' + token[1:]) %}"
        "{% endfor %}"
        f"{{{{ ns.text + {_literal(eot)} }}}}"
        "{% endfor %}"
    )


def _literal(value: str | list[str]) -> str:
    return json.dumps(value, ensure_ascii=False)
