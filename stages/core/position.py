"""position: whether an annotator leans to the answer that it is shown first.

Of a pair shown in both orders the lean is the preference for `a` when it stands first minus that when it stands second
(1, 1/2 or 0 each): 1 is the first answer twice, -1 the second twice, 0 no lean. The mean lean is the bias; whether it
could be chance is told by the exact sign test over prompts that lean at all. Zheng et al., arXiv:2306.05685, s3.3 count
the same flips; the test is ours.
"""

import math
from typing import NamedTuple

import polars as pl

from stages.core.intervals import Estimate, Intervals
from stages.core.preferences import ITEM

_VALUES = {"a": 1.0, "tie": 0.5, "b": 0.0}


class Lean(NamedTuple):
    """One annotator's lean over n pairs, with how many prompts lean to either side."""

    bias: Estimate
    n_first: int
    n_second: int
    p_value: float


def position_bias(verdicts: pl.DataFrame, intervals: Intervals) -> Lean | None:
    """The lean of one annotator's verdicts (schema.VERDICT); None where no pair has both orders scored."""
    value = pl.col("preference").replace_strict(_VALUES, return_dtype=pl.Float64)
    by_order = [
        verdicts.filter(pl.col("order") == order).drop_nulls("preference").select(*ITEM, value.alias("value"))
        for order in ("ab", "ba")
    ]
    both = by_order[0].join(by_order[1], on=ITEM, suffix="_ba").sort(*ITEM)
    if both.is_empty():
        return None
    lean = both.with_columns(lean=pl.col("value") - pl.col("value_ba"))
    by_prompt = lean.group_by("prompt_id").agg(pl.col("lean").sum())["lean"]
    n_first, n_second = int((by_prompt > 0).sum()), int((by_prompt < 0).sum())
    bias = intervals.estimate(lean["lean"], lean["prompt_id"], scale=(-1, 1))
    return Lean(bias, n_first, n_second, sign_test(n_first, n_second))


def sign_test(n_up: int, n_down: int) -> float:
    """Two-sided exact p-value of the sign test (binomial at 1/2; ties left out).

    >>> sign_test(0, 5), sign_test(3, 3)
    (0.0625, 1.0)
    """
    n = n_up + n_down
    tail: int = sum(math.comb(n, k) for k in range(min(n_up, n_down) + 1))
    return float(min(1.0, 2 * tail / 2**n))  # of whole numbers, so right for any n
