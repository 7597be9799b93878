"""How the next token is chosen: repetition penalty, temperature, nucleus."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import Field

from stages.core.section import Section


class Decoding(Section):
    """How answers are drawn."""

    seed: int = Field(ge=0)
    temperature: float = Field(ge=0, le=2)  # 0: the most likely token
    top_p: float = Field(gt=0, le=1)  # nucleus: the smallest set of tokens with at least this probability
    repetition_penalty: float = Field(ge=1, le=2)  # 1: none
    max_new_tokens: int = Field(ge=1)  # tokens of an answer
    n_samples: int = Field(ge=1)  # answers a prompt
    batch_size: int = Field(ge=1)  # answers decoded together


def choose_token(
    logits: np.ndarray[Any, np.dtype[np.float64]],
    text: Sequence[int],
    stream: np.random.Generator,
    *,
    decoding: Decoding,
) -> int:
    """Choose the next token of one answer.

    The repetition penalty divides positive and multiplies negative logits of every token that prompt or answer already
    hold (Keskar et al. 2019, CTRL, eq. in s4.1, as transformers implements it). Then temperature, then the nucleus.

    Args:
        logits: float64, shape (vocabulary,).
        text: ids of prompt and answer so far.
        stream: one uniform number is drawn from it, except when greedy.
        decoding: the sampling parameters.
    """
    if decoding.repetition_penalty != 1:
        seen = np.unique(np.asarray(text))
        logits = logits.copy()
        held = logits[seen]
        logits[seen] = np.where(held > 0, held / decoding.repetition_penalty, held * decoding.repetition_penalty)
    if decoding.temperature == 0:
        return int(np.argmax(logits))
    weights = np.exp((logits - logits.max()) / decoding.temperature)
    order = np.argsort(-weights, kind="stable")
    cumulative = np.cumsum(weights[order])
    nucleus = int(np.searchsorted(cumulative, decoding.top_p * cumulative[-1])) + 1
    point = stream.random() * cumulative[min(nucleus, len(order)) - 1]
    return int(order[min(int(np.searchsorted(cumulative, point, side="right")), len(order) - 1)])
