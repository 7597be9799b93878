"""Batched decoding with a key-value cache; answers leave the batch as they end.

Each answer draws from its own stream of uniform numbers, so neither the batch nor its neighbours decide what it says.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from stages.core.sampling import Decoding, choose_token


class Answer(NamedTuple):
    """Tokens of one answer, without the token that ended it."""

    ids: list[int]
    stop_id: int | None  # the token that ended it; None: it ran to its limit


def decode_batch(
    model: Any,  # noqa: ANN401 - a transformers causal LM
    prompts: Sequence[Sequence[int]],
    streams: Sequence[np.random.Generator],
    *,
    decoding: Decoding,
    stop_ids: frozenset[int],
    context_tokens: int,
    on_step: Callable[[int], None] = lambda _n: None,
) -> list[Answer]:
    """Answer a batch of prompts.

    Args:
        model: in eval mode.
        prompts: token ids, each of length >= 1; padded on the left here.
        streams: one source of uniform numbers for each prompt.
        decoding: the sampling parameters.
        stop_ids: tokens that end an answer.
        context_tokens: positions that the model has; an answer ends where they end.
        on_step: called after each token with the number of answers still open.
    """
    answers: list[Answer] = [Answer([], None)] * len(prompts)
    rows = [row for row, prompt in enumerate(prompts) if len(prompt) < context_tokens]
    if not rows:
        return answers
    state = _State.start(model, [prompts[row] for row in rows])
    texts = {row: list(prompts[row]) for row in rows}
    for _ in range(decoding.max_new_tokens):
        logits = state.logits(model)
        chosen = [choose_token(logits[at], texts[row], streams[row], decoding=decoding) for at, row in enumerate(rows)]
        still_open = []
        for at, (row, token) in enumerate(zip(rows, chosen, strict=True)):
            ids = texts[row][len(prompts[row]) :]
            if token in stop_ids:
                answers[row] = Answer(ids, token)
                continue
            texts[row].append(token)
            answers[row] = Answer([*ids, token], None)
            if len(texts[row]) < context_tokens:
                still_open.append(at)
        if not still_open:
            break
        state.keep(still_open, [chosen[at] for at in still_open])
        rows = [rows[at] for at in still_open]
        on_step(len(rows))
    return answers


class _State:
    """The open rows of a batch: what the model has read of each, and the tokens it reads next."""

    def __init__(self, inputs: torch.Tensor, mask: torch.Tensor) -> None:
        self.inputs = inputs  # (rows, new tokens)
        self.mask = mask  # (rows, tokens so far), 0 on padding
        self.cache: Any = None

    @classmethod
    def start(cls, model: Any, prompts: Sequence[Sequence[int]]) -> "_State":  # noqa: ANN401
        width = max(map(len, prompts))
        ids = torch.tensor([[0] * (width - len(prompt)) + list(prompt) for prompt in prompts], device=model.device)
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=model.device)
        return cls(ids, mask)

    def logits(self, model: Any) -> np.ndarray[Any, np.dtype[np.float64]]:  # noqa: ANN401
        """Logits of the next token, shape (rows, vocabulary)."""
        positions = (self.mask.cumsum(-1) - 1).clamp(min=0)[:, -self.inputs.shape[1] :]
        with torch.inference_mode():
            out = model(
                input_ids=self.inputs,
                attention_mask=self.mask,
                position_ids=positions,
                past_key_values=self.cache,
                use_cache=True,
                logits_to_keep=1,
            )
        self.cache = out.past_key_values
        result: np.ndarray[Any, np.dtype[np.float64]] = out.logits[:, -1].double().cpu().numpy()
        return result

    def keep(self, rows: list[int], tokens: list[int]) -> None:
        """Go on with some rows, each with its new token."""
        if len(rows) < len(self.mask):
            index = torch.tensor(rows, device=self.mask.device)
            self.cache.batch_select_indices(index)
            self.mask = self.mask[index]
        self.inputs = torch.tensor([[token] for token in tokens], device=self.mask.device)
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(rows), 1)], dim=1)
