"""decoding: answer many prompts with a key-value cache, continuously batched.

An answer leaves the batch as it ends, and waiting prompts take the free places. Each answer draws from its own stream
of uniform numbers, so neither the batch nor its neighbours decide what it says. What is left is rounding: the last bits
of a model's sums depend on the shape of the batch (1e-6 of a logit in fp32), so a number that falls that close to the
border between two tokens may take the other one. In bf16 that is ten thousand times coarser, and answers part.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn.functional import pad
from transformers import DynamicCache

from stages.core.nucleus import choose_tokens
from stages.core.sampling import Decoding

JOINABLE = {"full_attention", "sliding_attention"}  # kinds of layers whose caches can be joined, padded on the left


class Job(NamedTuple):
    """One answer to be given."""

    prompt: Sequence[int]  # token ids, at least one
    entropy: int  # seeds its stream of uniform numbers


class Ending(NamedTuple):
    """What ends an answer before its limit."""

    stop_ids: frozenset[int]
    is_ended: Callable[[list[int]], bool] | None


class Answer(NamedTuple):
    """Tokens of one answer, without the token that ended it."""

    ids: list[int]
    stop_id: int | None  # the token that ended it; None: it ran to its limit


def decode(
    model: Any,  # noqa: ANN401 - a transformers causal LM
    jobs: Sequence[Job],
    *,
    decoding: Decoding,
    stop_ids: frozenset[int],
    context_tokens: int,
    is_ended: Callable[[list[int]], bool] | None = None,
) -> Iterator[tuple[int, Answer]]:
    """Give each answer as it ends, with its place among `jobs`.

    Jobs enter in their order, a quarter of the batch at a time. Where the accelerator's memory runs out, the batch is
    halved and its open answers begin anew, which changes none of them.

    Args:
        model: in eval mode.
        jobs: what to answer; sorted by length, less of a batch is padding.
        decoding: the sampling parameters.
        stop_ids: tokens that end an answer.
        context_tokens: positions that the model has; an answer ends where they end.
        is_ended: whether an answer ends with the last of its tokens, asked after each.

    Raises:
        torch.OutOfMemoryError: one answer alone does not fit.
    """
    limits = [min(context_tokens, len(job.prompt) + decoding.max_new_tokens) for job in jobs]
    waiting = []  # places, the next one last
    for place in reversed(range(len(jobs))):
        if len(jobs[place].prompt) < context_tokens:
            waiting.append(place)
        else:
            yield place, Answer([], None)
    unfinished = set(waiting)
    size = decoding.batch_size
    ending = Ending(stop_ids, is_ended)
    batch = _Batch(model, decoding, [])
    while unfinished:
        n_free = size - len(batch.rows)
        is_room = n_free >= min(len(waiting), max(1, size // 4)) if is_joinable(model) else not batch.rows
        try:
            if waiting and is_room:
                places = [waiting.pop() for _ in range(min(n_free, len(waiting)))]
                part = _Batch(model, decoding, [_Row(place, jobs[place], limits[place]) for place in places])
                ended = part.step(ending)
                batch.join(part)
            else:
                ended = batch.step(ending)
        except torch.OutOfMemoryError:
            n_open = len(unfinished) - len(waiting)
            if n_open == 1:
                raise
            size = n_open // 2
            waiting = sorted(unfinished, reverse=True)
            batch = part = _Batch(model, decoding, [])
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            continue
        unfinished -= {place for place, _ in ended}
        yield from ended


def is_joinable(model: Any) -> bool:  # noqa: ANN401
    """Whether the caches of two batches can be joined; else jobs enter when a batch is through."""
    kinds = getattr(model.config.get_text_config(decoder=True), "layer_types", None) or ()
    return set(kinds) <= JOINABLE and not getattr(model, "_is_stateful", False)


class _Row:
    """One open answer."""

    def __init__(self, place: int, job: Job, limit: int) -> None:
        self.place = place
        self.text = list(job.prompt)  # and the answer so far
        self.n_prompt = len(job.prompt)
        self.stream = np.random.default_rng(job.entropy)
        self.limit = limit  # tokens of prompt and answer

    def take(self, token: int, ending: Ending) -> Answer | None:
        """Go on by a token; gives the answer if it ends here."""
        if token in ending.stop_ids:
            return Answer(self.text[self.n_prompt :], token)
        self.text.append(token)
        ends = len(self.text) == self.limit or (ending.is_ended and ending.is_ended(self.text[self.n_prompt :]))
        return Answer(self.text[self.n_prompt :], None) if ends else None


class _Batch:
    """Open answers, what the model has read of each (padded on the left), and the tokens it reads next."""

    def __init__(self, model: Any, decoding: Decoding, rows: list[_Row]) -> None:  # noqa: ANN401
        self.model = model
        self.is_joinable = is_joinable(model)
        self.decoding = decoding
        self.rows = rows
        width = max((len(row.text) for row in rows), default=0)
        texts = [[0] * (width - len(row.text)) + row.text for row in rows]
        masks = [[0] * (width - len(row.text)) + [1] * len(row.text) for row in rows]
        self.inputs = torch.tensor(texts, device=model.device)  # (rows, new tokens)
        self.mask = torch.tensor(masks, device=model.device)  # (rows, tokens so far), 0 on padding
        # One kind of layer for all kinds of attention: the mask limits a sliding window, and columns stay aligned.
        self.cache: Any = DynamicCache() if self.is_joinable else None
        self.seen: Any = None  # (rows, vocabulary), true where the text holds the token; None without a penalty

    @torch.inference_mode()
    def step(self, ending: Ending) -> list[tuple[int, Answer]]:
        """Read what is new, take a token for each row, and let go of the rows that end with it."""
        tokens = self._choose(self._logits())
        ended, kept = [], []
        for at, (row, token) in enumerate(zip(self.rows, tokens, strict=True)):
            answer = row.take(token, ending)
            if answer is None:
                kept.append(at)
            else:
                ended.append((row.place, answer))
        self._keep(kept)
        self.inputs = torch.tensor([[tokens[at]] for at in kept], device=self.mask.device)
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(kept), 1)], dim=1)
        return ended

    @torch.inference_mode()
    def join(self, other: "_Batch") -> None:
        """Take in the rows of another batch that has made a step as well, or is empty."""
        if not (self.rows and other.rows):
            self.__dict__ = self.__dict__ if self.rows else other.__dict__
            return
        width = max(self.mask.shape[1], other.mask.shape[1])
        self._widen(width)
        other._widen(width)
        self.rows = self.rows + other.rows
        self.inputs = torch.cat([self.inputs, other.inputs])
        self.mask = torch.cat([self.mask, other.mask])
        self.seen = None if self.seen is None else torch.cat([self.seen, other.seen])
        for mine, theirs in zip(self.cache.layers, other.cache.layers, strict=True):
            mine.keys, mine.values = torch.cat([mine.keys, theirs.keys]), torch.cat([mine.values, theirs.values])

    def _logits(self) -> torch.Tensor:
        """Logits of the next token, float64, shape (rows, vocabulary)."""
        positions = (self.mask.cumsum(-1) - 1).clamp(min=0)[:, -self.inputs.shape[1] :]
        out = self.model(
            input_ids=self.inputs,
            attention_mask=self.mask,
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self.cache = out.past_key_values
        logits: torch.Tensor = out.logits[:, -1].double()
        return logits

    def _choose(self, logits: torch.Tensor) -> list[int]:
        """A token for each row."""
        penalty = self.decoding.repetition_penalty
        if penalty != 1 and self.seen is None:
            self.seen = torch.zeros_like(logits, dtype=torch.bool)
            for at, row in enumerate(self.rows):
                self.seen[at, row.text] = True
        uniforms = [row.stream.random() for row in self.rows]
        chosen = choose_tokens(
            logits,
            self.seen,
            torch.tensor(uniforms, dtype=torch.float64, device=logits.device),
            temperature=self.decoding.temperature,
            top_p=self.decoding.top_p,
            repetition_penalty=penalty,
        )
        if self.seen is not None:
            self.seen.scatter_(1, chosen[:, None], True)
        tokens: list[int] = chosen.tolist()
        return tokens

    def _keep(self, kept: list[int]) -> None:
        """Let go of the other rows, and of the columns that are padding in all that are left."""
        if len(kept) == len(self.rows):
            return
        self.rows = [self.rows[at] for at in kept]
        index = torch.tensor(kept, dtype=torch.long, device=self.mask.device)
        self.mask = self.mask[index]
        self.seen = None if self.seen is None else self.seen[index]
        if not kept:
            return
        if self.is_joinable:
            for layer in self.cache.layers:  # each on its own device
                at = index.to(layer.keys.device)
                layer.keys, layer.values = layer.keys[at], layer.values[at]
            self._widen(max(len(row.text) for row in self.rows) - 1)
        else:
            self.cache.batch_select_indices(index)

    def _widen(self, width: int) -> None:
        """Add columns of padding on the left, up to a width, or take them away."""
        more = width - self.mask.shape[1]
        if more:
            self.mask = pad(self.mask, (more, 0))
            for layer in self.cache.layers:
                layer.keys, layer.values = (pad(tensor, (0, 0, more, 0)) for tensor in (layer.keys, layer.values))
