"""intervals: how far a mean over prompts may be off.

The prompt is the unit: answers to one prompt are not independent, so whole prompts are resampled (on MT-Bench that
makes intervals 1.67 times wider). Five cases, one rule each:

- a rate over at most 50 prompts, or below .1 or above .9: Wilson's score interval with n = prompts; exact practice for
  one answer a prompt, and on the safe side for several;
- every prompt has the same mean (a bootstrap would claim certainty): Wilson's interval for n of n, stretched over the
  scale;
- a paired difference of one answer a prompt, right or wrong on either side, in which fewer than 20 prompts differ (a
  bootstrap of 4 to 0 would exclude zero, which McNemar's exact test does not): Bonett and Price's adjusted interval;
- a mean on another scale than a rate's (grades from 1 to 6, s5): Student's t over prompts, kept on the scale;
- else: the percentile bootstrap over prompts.

Wilson 1927; Efron & Tibshirani 1993, ch. 13; Bonett & Price 2012. The choice of rule follows Brown, Cai & DasGupta
2001; the bound of 20 is ours: about 10 to either side are what a normal approximation is commonly asked to have.
"""

from collections.abc import Callable, Mapping
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

FEW_PROMPTS = 50
EXTREME_RATE = 0.9
FEW_DISCORDANT = 20
_CHUNK = 2_000_000  # resampled prompts held at once


class Estimate(NamedTuple):
    """A mean over n values with its interval; of nothing there is none."""

    n: int
    value: float | None
    low: float | None
    high: float | None


class Intervals(NamedTuple):
    """How intervals are made: the section `score` of params.yaml.

    Every estimate draws from its own generator of that seed, so that one more opponent changes no other interval, and
    two measures over the same prompts are resampled alike.
    """

    seed: int
    n_bootstrap: int
    confidence: float

    def estimate(self, values: npt.ArrayLike, prompts: npt.ArrayLike, *, scale: tuple[float, float]) -> Estimate:
        """The mean of `values` (n,) that belong to `prompts` (n,), on a scale from its lowest to its highest value."""
        x = np.asarray(values, dtype=np.float64)
        if x.size == 0:
            return Estimate(0, None, None, None)
        sums, counts = _by_prompt(x, np.asarray(prompts))
        mean = float(sums.sum() / counts.sum())
        is_rate = scale == (0.0, 1.0)  # with halves too: no variable of that mean in [0, 1] varies more
        if is_rate and (counts.size <= FEW_PROMPTS or max(mean, 1 - mean) > EXTREME_RATE):
            low, high = wilson(mean, n=counts.size, confidence=self.confidence)
        elif np.ptp(sums / counts) == 0:
            low, high = _certain(mean, n=counts.size, scale=scale, confidence=self.confidence)
        elif scale == (-1.0, 1.0) and _few_discordant(x, counts):
            n_up, n_down = float(x[x > 0].sum()), float(-x[x < 0].sum())
            low, high = bonett_price(n_up, n_down, n=counts.size, confidence=self.confidence)
        elif scale not in ((0, 1), (-1, 1)):
            low, high = student_t(sums, counts, confidence=self.confidence)
            low, high = max(low, scale[0]), min(high, scale[1])
        else:
            low, high = self._bootstrap(sums, counts)
        return Estimate(int(x.size), mean, low, high)

    def resampled(self, sums: Floats, statistic: Callable[[Floats], Mapping[str, Floats]]) -> dict[str, Estimate]:
        """Statistics of a sum over prompts, with the percentile bootstrap over prompts.

        Args:
            sums: (n_prompts, ...) what each prompt adds.
            statistic: of sums (..., as of one prompt) gives named statistics (...), NaN where one does not exist.

        Returns:
            Estimates by name, with n prompts. None for what does not exist, in the sample or (the interval) in more
            than 1 in 20 resamples; no interval either where no resample differs, which is no certainty.
        """
        n = sums.shape[0]
        if n == 0:
            return {}
        rng = np.random.default_rng(self.seed)
        drawn = []
        for start in range(0, self.n_bootstrap, size := max(1, _CHUNK // n)):
            times = rng.multinomial(n, np.full(n, 1 / n), size=min(size, self.n_bootstrap - start))  # (resamples, n)
            drawn.append(np.tensordot(times.astype(np.float64), sums, axes=1))
        resamples = statistic(np.concatenate(drawn))
        return {
            name: Estimate(n, None, None, None)
            if np.isnan(value)
            else Estimate(n, float(value), *self._ends(resamples[name]))
            for name, value in statistic(sums.sum(axis=0)).items()
        }

    def _ends(self, resamples: Floats) -> tuple[float | None, float | None]:
        known = resamples[~np.isnan(resamples)]
        if known.size < 0.95 * resamples.size or np.ptp(known) < 1e-12:
            return None, None
        low, high = np.quantile(known, [(1 - self.confidence) / 2, (1 + self.confidence) / 2])
        return float(low), float(high)

    def _bootstrap(self, sums: Floats, counts: Floats) -> tuple[float, float]:
        means = bootstrap_means(sums, counts, n_bootstrap=self.n_bootstrap, rng=np.random.default_rng(self.seed))
        tail = (1 - self.confidence) / 2
        low, high = np.quantile(means, [tail, 1 - tail])
        return float(low), float(high)


def wilson(rate: float, *, n: int, confidence: float) -> tuple[float, float]:
    """Wilson's score interval of a rate over n independent trials.

    >>> [round(end, 4) for end in wilson(0.5, n=10, confidence=0.95)]
    [0.2366, 0.7634]
    """
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (rate * (1 - rate) / n + z * z / (4 * n * n)) ** 0.5
    return min(rate, max(0.0, centre - half)), max(rate, min(1.0, centre + half))


def bonett_price(n_up: float, n_down: float, *, n: int, confidence: float) -> tuple[float, float]:
    """Adjusted Wald interval of (n_up - n_down) / n over n pairs: one more pair that differs to either side.

    >>> [round(end, 4) for end in bonett_price(4, 0, n=300, confidence=0.95)]
    [-0.0026, 0.0291]
    """
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    up, down = (n_up + 1) / (n + 2), (n_down + 1) / (n + 2)
    half = z * ((up + down - (up - down) ** 2) / (n + 2)) ** 0.5
    mean = (n_up - n_down) / n
    return min(mean, max(-1.0, up - down - half)), max(mean, min(1.0, up - down + half))


def student_t(sums: Floats, counts: Floats, *, confidence: float) -> tuple[float, float]:
    """Student's t interval of a mean over prompts, of which each (at least two) has a sum of `counts` values."""
    from scipy.special import stdtrit  # 0.3 s to import

    n, mean = sums.size, sums.sum() / counts.sum()
    error = (n / (n - 1) * ((sums - mean * counts) ** 2).sum()) ** 0.5 / counts.sum()
    half = float(stdtrit(n - 1, (1 + confidence) / 2) * error)
    return float(mean) - half, float(mean) + half


def minimum_detectable(values: npt.ArrayLike, prompts: npt.ArrayLike, *, confidence: float, power: float) -> float:
    """The distance of a mean from 1/2 that so many prompts would show, by a two-sided test of that power.

    (z of the test + z of the power) * standard error of the mean, where values spread about 1/2 as these do: 7.2 points
    for 300 prompts of which a fifth are ties.

    Args:
        values: (n,) preferences in [0, 1], at least one.
        prompts: (n,) the prompt of each.
        confidence: 1 - the level of the test.
        power: probability of showing such a difference.
    """
    sums, counts = _by_prompt(np.asarray(values, dtype=np.float64), np.asarray(prompts))
    error = float(np.sqrt((((sums / counts) - 0.5) ** 2).mean() / sums.size))
    return (NormalDist().inv_cdf((1 + confidence) / 2) + NormalDist().inv_cdf(power)) * error


def standard_error(values: Floats) -> Floats:
    """Standard error of the mean over the first axis, of independent rows (at least two)."""
    return np.asarray(values.std(axis=0, ddof=1) / np.sqrt(values.shape[0]), dtype=np.float64)


def bootstrap_means(sums: Floats, counts: Floats, *, n_bootstrap: int, rng: np.random.Generator) -> Floats:
    """Means of resampled prompts.

    Args:
        sums: (n_prompts,) sum of the values of each prompt.
        counts: (n_prompts,) how many they are.
        n_bootstrap: resamples.
        rng: where the draws come from.

    Returns:
        (n_bootstrap,) sum of sums over sum of counts, in each resample of n_prompts prompts with replacement.
    """
    n = sums.size
    means = []
    for start in range(0, n_bootstrap, size := max(1, _CHUNK // n)):
        drawn = rng.integers(0, n, size=(min(size, n_bootstrap - start), n))  # (resamples, n_prompts)
        means.append(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1))
    return np.concatenate(means)


def _by_prompt(values: Floats, prompts: npt.NDArray[np.generic]) -> tuple[Floats, Floats]:
    _, at = np.unique(prompts, return_inverse=True)
    return np.bincount(at, weights=values).astype(np.float64), np.bincount(at).astype(np.float64)


def _few_discordant(values: Floats, counts: Floats) -> bool:
    """Whether these are differences of one answer a prompt, few of them not 0."""
    return int(counts.max()) == 1 and int(np.count_nonzero(values)) < FEW_DISCORDANT


def _certain(mean: float, *, n: int, scale: tuple[float, float], confidence: float) -> tuple[float, float]:
    """All n prompts agree, so the share of others is at most 1 - low, each at worst at an end of the scale."""
    others = 1 - wilson(1.0, n=n, confidence=confidence)[0]
    return mean - others * (mean - scale[0]), mean + others * (scale[1] - mean)
