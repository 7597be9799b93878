"""agreement_tables: how far every two annotators agree, and every two kinds of annotators.

Both are over the pairs of answers that both have scored, the first shown or either order alike; a pair on which
somebody is inconsistent counts as no preference, yet as no declared tie. Intervals are over prompts.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from stages.core.agreement import Floats, alpha, coincidences, statistics, tables, tie_discounted
from stages.core.intervals import Intervals
from stages.core.preferences import ITEM, preference_values

_N, _NUMBER, _TEXT = pl.Int64(), pl.Float64(), pl.String()
MEASURED: dict[str, pl.DataType] = {
    "n": _N,  # pairs of votes
    "n_prompts": _N,
    "agreement": _NUMBER,  # tie-discounted accuracy
    "low": _NUMBER,
    "high": _NUMBER,
    "kappa": _NUMBER,  # linear weights
    "kappa_low": _NUMBER,
    "kappa_high": _NUMBER,
    "alpha": _NUMBER,  # Krippendorff's, nominal
    "alpha_low": _NUMBER,
    "alpha_high": _NUMBER,
    "exact": _NUMBER,  # share of the same preference
    "decided": _NUMBER,  # ... among pairs where both prefer a side
    "tie_rate_a": _NUMBER,
    "tie_rate_b": _NUMBER,
}
AGREEMENT: dict[str, pl.DataType] = {"annotator_a": _TEXT, "annotator_b": _TEXT, **MEASURED}
AGREEMENT_GROUPS: dict[str, pl.DataType] = {"group_a": _TEXT, "group_b": _TEXT, **MEASURED}


def agreement_table(pairs: pl.DataFrame, intervals: Intervals) -> pl.DataFrame:
    """Every two annotators, on the pairs that both have scored, all opponents together, by name."""
    shared = _shared(pairs)
    rows = [
        {"annotator_a": a, "annotator_b": b, **_measured(some, intervals, is_one_group=False)}
        for (a, b), some in sorted(shared.partition_by("annotator", "annotator_b", as_dict=True).items())
    ]
    return pl.DataFrame(rows, schema=AGREEMENT)


def agreement_groups_table(pairs: pl.DataFrame, groups: Mapping[str, str], intervals: Intervals) -> pl.DataFrame:
    """Every two kinds of annotators, over all pairs of two different annotators' votes on one item.

    Args:
        pairs: as `preferences.resolve` gives them.
        groups: the kind of each annotator.
        intervals: how intervals are made.
    """
    shared = _shared(pairs)
    kind = [pl.col(name).replace_strict(dict(groups), return_dtype=_TEXT) for name in ("annotator", "annotator_b")]
    named = shared.with_columns(group_a=kind[0], group_b=kind[1])
    turned = pl.col("group_a") > pl.col("group_b")
    both = ("group", "value", "outcome")
    columns = {side: [name if name != "group" and side == "a" else f"{name}_{side}" for name in both] for side in "ab"}
    ordered = named.with_columns(
        pl.when(turned).then(pl.col(theirs)).otherwise(pl.col(ours)).alias(ours)
        for ours, theirs in [
            *zip(columns["a"], columns["b"], strict=True),
            *zip(columns["b"], columns["a"], strict=True),
        ]
    )
    rows = [
        {"group_a": a, "group_b": b, **_measured(some, intervals, is_one_group=a == b)}
        for (a, b), some in sorted(ordered.partition_by("group_a", "group_b", as_dict=True).items())
    ]
    return pl.DataFrame(rows, schema=AGREEMENT_GROUPS)


def _shared(pairs: pl.DataFrame) -> pl.DataFrame:
    """Every two annotators' scored outcomes of one pair of answers, the first by name first, sorted."""
    values = preference_values(pairs).select(*ITEM, "annotator", "value", "outcome")
    both = values.join(values, on=ITEM, suffix="_b").filter(pl.col("annotator") < pl.col("annotator_b"))
    return both.sort(*ITEM, "annotator", "annotator_b")


def _measured(shared: pl.DataFrame, intervals: Intervals, *, is_one_group: bool) -> dict[str, Any]:
    """MEASURED of rows with value, outcome (the first's) and value_b, outcome_b; within a group nobody is the first."""
    x, y = shared["value"], shared["value_b"]
    n, mean, low, high = intervals.estimate(tie_discounted(x, y), shared["prompt_id"], scale=(0, 1))
    counts = tables(x, y)
    ties = [int((shared[column] == "tie").sum()) / n for column in ("outcome", "outcome_b")]
    if is_one_group:
        counts = (counts + counts.swapaxes(1, 2)) / 2
        ties = [sum(ties) / 2] * 2
    both = np.stack([counts, coincidences(counts, n_annotators=_n_annotators(shared) if is_one_group else 2)], axis=1)
    sums = by_prompt(both, shared["prompt_id"])  # (n_prompts, 2, 3, 3)
    found = intervals.resampled(sums, lambda s: {**statistics(s[..., 0, :, :]), "alpha": alpha(s[..., 1, :, :])})
    chance = {
        name if end == "value" else f"{name}_{end}": getattr(found[name], end)
        for name in ("kappa", "alpha")
        for end in ("value", "low", "high")
    }
    return {
        "n": n,
        "n_prompts": sums.shape[0],
        "agreement": mean,
        "low": low,
        "high": high,
        **chance,
        **{name: found[name].value for name in ("exact", "decided")},
        "tie_rate_a": ties[0],
        "tie_rate_b": ties[1],
    }


def _n_annotators(shared: pl.DataFrame) -> Floats:
    """How many annotators each row's item has, of rows that hold every two of them once."""
    n_rows = shared.select(pl.len().over(*ITEM)).to_series().to_numpy()
    return np.asarray((1 + np.sqrt(1 + 8 * n_rows)) / 2)


def by_prompt(values: Floats, prompts: pl.Series) -> Floats:
    """Sums of values (n, ...) by prompt: (n_prompts, ...), in the order of their ids."""
    names, at = np.unique(prompts.to_numpy(), return_inverse=True)
    sums = np.zeros((names.size, *values.shape[1:]))
    np.add.at(sums, at, values)
    return sums
