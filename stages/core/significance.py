"""significance: whether two runs differ on the prompts that both have answered, or by chance.

The prompt is the unit: what a run says of it is the mean over samples. Under the hypothesis that the two runs are alike
the sign of each prompt's difference is a coin, so the p-value is the share of sign patterns with a mean at least as far
from 0 (Fisher's randomisation test for pairs): all patterns where they are few, else a seeded draw of them.
"""

from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from stages.core.intervals import Estimate, Intervals, standard_error

Floats = npt.NDArray[np.float64]

MAX_EXACT = 14  # prompts that differ: 2^14 patterns
N_PATTERNS = 20_000
_CHUNK = 2_000


class Compared(NamedTuple):
    """One measure of two runs over n shared prompts: both means, the second minus the first, and its p-value."""

    first: float
    second: float
    difference: Estimate
    detectable: float | None  # difference that so many prompts would show; None where nothing is known of the spread
    p_value: float


def compare(
    first: pl.DataFrame, second: pl.DataFrame, *, scale: tuple[float, float], intervals: Intervals, power: float
) -> Compared | None:
    """Compare two runs; None where they share no prompt.

    Args:
        first: columns prompt_id and value, one row a sample.
        second: the same of the other run.
        scale: lowest and highest value.
        intervals: how intervals are made; its seed draws the sign patterns.
        power: probability of showing the detectable difference.
    """
    means = [run.group_by("prompt_id").agg(pl.col("value").mean()) for run in (first, second)]
    both = means[0].join(means[1], on="prompt_id", suffix="_second").sort("prompt_id")
    if both.is_empty():
        return None
    x, y = both["value"].to_numpy(), both["value_second"].to_numpy()
    width = scale[1] - scale[0]
    apart = intervals.estimate((y - x) / width, both["prompt_id"], scale=(-1, 1))
    numbers = [None if end is None else end * width for end in apart[1:]]
    least = detectable(y - x, confidence=intervals.confidence, power=power)
    p_value = sign_flip(y - x, seed=intervals.seed)
    return Compared(float(x.mean()), float(y.mean()), Estimate(apart.n, *numbers), least, p_value)


def detectable(differences: npt.ArrayLike, *, confidence: float, power: float) -> float | None:
    """The true mean difference that a two-sided test of so many prompts would show with that power.

    (z of the test + z of the power) * standard error of the paired differences (n,); None of fewer than two prompts,
    and where none differs from the others.
    """
    apart = np.asarray(differences, dtype=np.float64)
    if apart.size < 2 or np.ptp(apart) == 0:
        return None
    z = NormalDist().inv_cdf((1 + confidence) / 2) + NormalDist().inv_cdf(power)
    return z * float(standard_error(apart))


def sign_flip(differences: npt.ArrayLike, *, seed: int) -> float:
    """Two-sided p-value of paired differences (n,); 1 where none differs."""
    apart = np.asarray(differences, dtype=np.float64)
    apart = apart[apart != 0]
    if apart.size == 0:
        return 1.0
    least = abs(apart.sum()) - 1e-9
    if apart.size <= MAX_EXACT:
        patterns = 1 - 2.0 * ((np.arange(2**apart.size)[:, None] >> np.arange(apart.size)) & 1)
        return float((np.abs(patterns @ apart) >= least).mean())
    rng = np.random.default_rng(seed)
    n_far = 0
    for _ in range(0, N_PATTERNS, _CHUNK):
        signs = 1 - 2.0 * rng.integers(0, 2, size=(_CHUNK, apart.size))
        n_far += int((np.abs(signs @ apart) >= least).sum())
    return (1 + n_far) / (1 + N_PATTERNS)  # the pattern that was seen is one of them
