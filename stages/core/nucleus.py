"""nucleus: how the next tokens are chosen, of all open answers at once: repetition penalty, temperature, nucleus.

LIMA s4.1 takes nucleus sampling from Holtzman et al. 2020 and the repetition penalty from Keskar et al. 2019 (CTRL,
s4.1), which is over all tokens so far, prompt and answer. CTRL divides the logit of such a token whatever its sign,
which would favour one below zero; like transformers we multiply there.
"""

import torch

FIRST_K = 64  # most nuclei are smaller; a larger one is looked for among more tokens


def choose_tokens(
    logits: torch.Tensor,
    seen: torch.Tensor | None,
    uniforms: torch.Tensor,
    *,
    temperature: float,
    top_p: float,
    repetition_penalty: float,
) -> torch.Tensor:
    """Choose the next token of each answer.

    Tokens stand in the order of their probability, equal ones in the order of their ids; the nucleus is the shortest
    run from the first on that holds at least `top_p`, and the token taken is the one at the uniform number's share of
    that. A row's choice follows from its own logits, tokens and number alone.

    Args:
        logits: float64, shape (rows, vocabulary).
        seen: bool, shape (rows, vocabulary): tokens that prompt or answer already hold; read under a penalty only.
        uniforms: float64 in [0, 1), shape (rows,).
        temperature: 0 is greedy, which draws nothing.
        top_p: in (0, 1].
        repetition_penalty: 1 is none.

    Returns:
        Token ids, int64, shape (rows,).
    """
    if repetition_penalty != 1 and seen is not None:
        penalised = torch.where(logits > 0, logits / repetition_penalty, logits * repetition_penalty)
        logits = torch.where(seen, penalised, logits)
    if temperature == 0:
        return logits.argmax(-1)
    weights = ((logits - logits.amax(-1, keepdim=True)) / temperature).exp()
    limits = top_p * weights.sum(-1, keepdim=True)
    n_vocabulary = weights.shape[-1]
    k = min(FIRST_K, n_vocabulary)
    while True:
        held, ids = _largest(weights, k)
        cumulative = held.cumsum(-1)
        last = (cumulative < limits).sum(-1, keepdim=True).clamp(max=k - 1)  # of the nucleus, from 0
        # Beyond the k largest there may be tokens as likely as the k-th, and their ids decide who comes first.
        if k == n_vocabulary or bool((held.gather(-1, last) > held[:, -1:]).all()):
            break
        k = min(16 * k, n_vocabulary)
    points = uniforms[:, None] * cumulative.gather(-1, last)
    taken = (cumulative <= points).sum(-1, keepdim=True).clamp(max=k - 1)
    return ids.gather(-1, taken)[:, 0]


def _largest(weights: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The k largest of each row with their ids, in falling order, equal ones by rising id."""
    ids = weights.topk(k, dim=-1, sorted=False).indices.sort(dim=-1).values
    held, order = weights.gather(-1, ids).sort(dim=-1, descending=True, stable=True)
    return held, ids.gather(-1, order)
