"""The supervised loss of packed rows, without their full logits."""

from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from stages.core.packed_attention import Segments
from stages.core.packing import Pack
from stages.core.residual_dropout import Streams

LOGITS_BYTES = 2**28  # of one chunk, in 32 bits
# Families whose logits are more than the head's output and a soft cap give theirs themselves.
_FACTORS = ("logit_scale", "logits_scaling", "lm_head_multiplier")


def n_chunks(n_tokens: int, vocab_size: int, *, logits_bytes: int = LOGITS_BYTES) -> int:
    """Parts that the logits of so many supervised tokens are computed in.

    >>> n_chunks(2048, 32_000), n_chunks(2048, 256_000), n_chunks(0, 8)
    (1, 8, 1)
    """
    return max(1, -(-4 * n_tokens * vocab_size // logits_bytes))


class SupervisedLoss(nn.Module):
    """A causal LM with its loss as one module, so that what wraps a model (DDP, ZeRO) sees one forward pass.

    Only supervised tokens get logits, a chunk at a time: each chunk's are computed again in the backward pass, so that
    no more than one chunk of them is ever held.
    """

    def __init__(self, model: Any, streams: Streams) -> None:  # noqa: ANN401 - a transformers causal LM
        super().__init__()
        self.model = model
        self.streams = streams  # of its residual dropout
        self.vocab_size = int(model.get_input_embeddings().num_embeddings)
        self.softcap: float | None = getattr(model.config, "final_logit_softcapping", None)
        self.has_plain_head = not any(getattr(model.config, name, None) not in (None, 1, 1.0) for name in _FACTORS)

    def forward(self, row: Pack, n_parts: int, moment: tuple[int, int]) -> torch.Tensor:
        """Sum of the cross-entropies, in nats, of a packed row's supervised tokens.

        Args:
            row: on the model's device.
            n_parts: chunks of logits; the same on every process, as sharded weights are gathered for each.
            moment: seed and step, which residual dropout follows from.
        """
        seed, step = moment
        self.streams.begin(seed=seed, step=step, examples=row.examples, lengths=row.lengths)
        inputs = {
            "input_ids": row.input_ids,
            "position_ids": row.position_ids,
            "segments": Segments(row.lengths, row.input_ids.device),
            "use_cache": False,
        }
        if not self.has_plain_head:
            logits = self.model(**inputs, logits_to_keep=row.predict).logits[0]
            return cross_entropy(logits.float(), row.targets, reduction="sum")
        hidden = self.model.get_decoder()(**inputs).last_hidden_state[0].index_select(0, row.predict)
        if n_parts == 1:
            return self._of_chunk(hidden, row.targets)
        parts = zip(hidden.tensor_split(n_parts), row.targets.tensor_split(n_parts), strict=True)
        losses = [checkpoint(self._of_chunk, *part, use_reentrant=False, preserve_rng_state=False) for part in parts]
        return torch.stack(losses).sum()

    def _of_chunk(self, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        logits = self.model.get_output_embeddings()(hidden).float()
        if self.softcap is not None:
            logits = (logits / self.softcap).tanh() * self.softcap
        return cross_entropy(logits, targets, reduction="sum")
