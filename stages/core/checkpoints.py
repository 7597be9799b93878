"""checkpoints: which candidate epoch is taken.

The best is found by one of three measures, on the dev prompts:

- `grade`: the mean helpfulness, over the prompts that every epoch has a grade for (a prompt's grade is the mean over
  annotators of the mean over its samples; an annotator who has not graded it for every epoch is left out there); an
  epoch with grades for less than half of the prompts is left out;
- `pairs`: Bradley-Terry strengths (stages/core/bradley_terry.py) from a round robin in which every annotator
  compares the answers of any two epochs in both orders; a tie and a pair whose orders disagree count half for each;
- `perplexity`: the lowest of the held-out responses. The paper found that it rises while answers get better (s3, Figure
  9), so this is there to be compared with.

Within noise the earlier epoch wins. Noise is one standard error of how far an epoch lies behind the best one, prompts
being the unit: of the paired differences of grades, or of the difference of strengths by the delete-one jackknife
(Efron and Stein 1981). So: the earliest epoch that is within one standard error of the best. With fewer than two
prompts nothing is known of the noise, and the earliest candidate is taken. A perplexity is over one fixed text, and
the lowest is taken as it is.

The paper chose by hand between epochs 5 and 10 on 50 dev prompts (s3, Appendix B); the rule is ours, after the
one-standard-error rule of Breiman et al. 1984, s3.4.3.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from stages.core.bradley_terry import round_robin
from stages.core.intervals import standard_error
from stages.core.preferences import preference_values, resolve
from stages.core.presentations import epoch_name
from stages.schema import STANDING

Floats = npt.NDArray[np.float64]


def standing_by_grade(grades: pl.DataFrame, epochs: Sequence[int]) -> pl.DataFrame:
    """How epochs stand by grades (schema.EPOCH_GRADE): schema.STANDING, by epoch."""
    item = ("prompt_id", "annotator")
    per_item = (  # helpfulness, null where no sample has a grade
        grades.group_by(*item, "epoch").agg(pl.col("helpfulness").mean()).sort(*item, "epoch")
    )
    wide = per_item.pivot(on="epoch", index=item, values="helpfulness")
    applicable = wide.filter(pl.any_horizontal(pl.col(str(epoch)).is_not_null() for epoch in epochs))
    graded = [epoch for epoch in epochs if 2 * applicable[str(epoch)].count() >= applicable.height] or list(epochs)
    columns = [str(epoch) for epoch in graded]
    table = applicable.drop_nulls(columns).group_by("prompt_id").agg(pl.col(columns).mean()).sort("prompt_id")
    if table.height < 2:
        found = _unknown("grade", graded, n=table.height)
    else:
        scores = table.select(columns).to_numpy().astype(np.float64)  # (n_prompts, n_epochs)
        means = scores.mean(axis=0)
        behind = scores[:, [int(means.argmax())]] - scores
        found = _standing("grade", graded, n=table.height, quality=means, error=standard_error(behind))
    left_out = [{"epoch": epoch, "by": "grade", "n": 0, "taken": False} for epoch in epochs if epoch not in graded]
    return pl.concat([found, pl.DataFrame(left_out, schema=dict(STANDING))]).sort("epoch")


def standing_by_pairs(verdicts: pl.DataFrame, epochs: Sequence[int]) -> pl.DataFrame:
    """How epochs stand by verdicts on their pairs (schema.VERDICT): schema.STANDING, by epoch."""
    wins = _wins(verdicts, epochs)
    n = len(wins)
    if n < 2:
        return _unknown("pairs", epochs, n=n)
    quality = round_robin(wins.sum(axis=0))
    without = round_robin(wins.sum(axis=0) - wins)  # (n_prompts, n_epochs), a prompt left out of each
    behind = without[:, [int(quality.argmax())]] - without
    error = np.sqrt((n - 1) / n * ((behind - behind.mean(axis=0)) ** 2).sum(axis=0))
    return _standing("pairs", epochs, n=n, quality=quality, error=error)


def standing_by_perplexity(perplexity: pl.DataFrame, epochs: Sequence[int]) -> pl.DataFrame:
    """How epochs stand by held-out perplexity (schema.PERPLEXITY): schema.STANDING, by epoch."""
    measured = dict(perplexity.select("epoch", "perplexity").iter_rows())
    if any(measured.get(epoch) is None for epoch in epochs):
        return _unknown("perplexity", epochs, n=None)
    quality = -np.array([measured[epoch] for epoch in epochs], dtype=np.float64)
    return _standing("perplexity", epochs, n=None, quality=quality, error=np.zeros(len(epochs)))


def epoch_taken(standing: pl.DataFrame) -> int:
    """The epoch that is marked in schema.STANDING."""
    return int(standing.filter("taken")["epoch"].item())


def _wins(verdicts: pl.DataFrame, epochs: Sequence[int]) -> Floats:
    """(n_prompts, n_epochs, n_epochs): how often an epoch's answers to a prompt were preferred to another's."""
    pairs = preference_values(resolve(verdicts))
    place = {epoch_name(epoch): at for at, epoch in enumerate(epochs)}
    prompts = {prompt: at for at, prompt in enumerate(pairs["prompt_id"].unique().sort())}
    wins = np.zeros((len(prompts), len(epochs), len(epochs)))
    for prompt, a, b, value in pairs.select("prompt_id", "a", "b", "value").iter_rows():
        wins[prompts[prompt], place[a], place[b]] += value
        wins[prompts[prompt], place[b], place[a]] += 1 - value
    return wins


def _standing(by: str, epochs: Sequence[int], *, n: int | None, quality: Floats, error: Floats) -> pl.DataFrame:
    behind = quality.max() - quality
    taken = int((behind <= error).argmax())
    rows = [
        {"epoch": epoch, "by": by, "n": n, "quality": quality[at], "behind": behind[at], "error": error[at],
         "taken": at == taken}
        for at, epoch in enumerate(epochs)
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=dict(STANDING))


def _unknown(by: str, epochs: Sequence[int], *, n: int | None) -> pl.DataFrame:
    """Nothing tells the epochs apart: the earliest is taken."""
    rows = [{"epoch": epoch, "by": by, "n": n, "taken": at == 0} for at, epoch in enumerate(epochs)]
    return pl.DataFrame(rows, schema=dict(STANDING))
