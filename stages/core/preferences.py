"""preferences: what two orders of a pair amount to.

Shown in both orders, an annotator either says the same twice, which is its preference (win, tie or lose of the judged
arm), or not: then it is `inconsistent`, whether the second verdict is the other side or a tie. That is apart from a
tie, which the annotator declares twice. A pair with an unscored order is `unscored`; one that the annotator cannot
speak about is `not_applicable`. Rates are over the scored pairs: win, tie, lose and inconsistent. The paper shows each
pair once (s4.1); the second order and its rules are ours, see Zheng et al., arXiv:2306.05685, s3.4.
"""

from typing import Literal, get_args

import polars as pl

from stages.core.judging import NO_REFERENCE

PairOutcome = Literal["win", "tie", "lose", "inconsistent"]
OUTCOMES: tuple[PairOutcome, ...] = get_args(PairOutcome)

# Half a preference, for measures that need a number: neither a tie nor an inconsistent pair prefers a side.
PREFERENCE_VALUES = {"win": 1.0, "tie": 0.5, "inconsistent": 0.5, "lose": 0.0}

ITEM = ("prompt_id", "sample", "a", "b")


def resolve(verdicts: pl.DataFrame) -> pl.DataFrame:
    """One row a pair and annotator, sorted: ITEM, annotator, outcome.

    Args:
        verdicts: schema.VERDICT; one or two orders a pair (people see each pair once).
    """
    first = {"a": "win", "b": "lose", "tie": "tie"}
    preference, reason = pl.col("preference"), pl.col("unscored_reason")
    return (
        verdicts.group_by(*ITEM, "annotator")
        .agg(
            pl.when(reason.eq_missing(NO_REFERENCE).all())  # `==` would let null pass
            .then(pl.lit("not_applicable"))
            .when(preference.is_null().any())
            .then(pl.lit("unscored"))
            .when(preference.n_unique() > 1)
            .then(pl.lit("inconsistent"))
            .otherwise(preference.first().replace_strict(first, return_dtype=pl.String))
            .alias("outcome")
        )
        .sort(*ITEM, "annotator")
    )


def scored(pairs: pl.DataFrame) -> pl.DataFrame:
    """The pairs that count in a rate."""
    return pairs.filter(pl.col("outcome").is_in(OUTCOMES))


def preference_values(pairs: pl.DataFrame) -> pl.DataFrame:
    """The scored pairs with `value`: 1 for the judged arm, 0 for the opponent, 1/2 for neither."""
    return scored(pairs).with_columns(
        pl.col("outcome").replace_strict(PREFERENCE_VALUES, return_dtype=pl.Float64).alias("value")
    )
