"""paper_tables: this run's Figures 1 to 3 and table of agreement, each with the rows of the paper's own.

For `dvc plots` and for whoever wants both in one file; `source` is the judged arm, or the paper's model. Shares are in
[0, 1]; the paper gives whole percent and no intervals, so its `low` and `high` are null.
"""

import polars as pl

from stages.core import paper

_NUMBER, _TEXT = pl.Float64(), pl.String()
PAPER_PREFERENCES: dict[str, pl.DataType] = {
    "source": _TEXT,
    "annotator": _TEXT,
    "opponent": _TEXT,
    "outcome": _TEXT,  # win, tie, inconsistent, lose
    "rate": _NUMBER,
}
PAPER_SHARES: dict[str, pl.DataType] = {
    "source": _TEXT,
    "annotator": _TEXT,
    "share": _TEXT,  # Excellent, Pass, Fail; safe; safe, malicious; safe, other
    "rate": _NUMBER,
    "low": _NUMBER,
    "high": _NUMBER,
}
PAPER_AGREEMENT: dict[str, pl.DataType] = {
    "source": _TEXT,
    "annotators": _TEXT,  # two kinds
    "agreement": _NUMBER,
    "low": _NUMBER,
    "high": _NUMBER,
}


def paper_preferences_table(pairwise: pl.DataFrame, *, arm: str) -> pl.DataFrame:
    """Figures 1 and 2 (s4.2), from the table `pairwise`."""
    ours = pairwise.select(pl.lit(arm).alias("source"), "annotator", "opponent", "outcome", "rate")
    theirs = [
        (paper.MODEL, row.annotator, row.opponent, outcome, getattr(row, outcome) / 100)
        for row in paper.PREFERENCES
        for outcome in ("win", "tie", "lose")
    ]
    return pl.concat([ours, pl.DataFrame(theirs, schema=PAPER_PREFERENCES, orient="row")])


def paper_shares_table(shares: pl.DataFrame) -> pl.DataFrame:
    """Figure 3 and the safe answers (s4.3), from the table `shares`: every arm's."""
    ours = shares.select(pl.col("responder").alias("source"), "annotator", "share", "rate", "low", "high")
    theirs = [(paper.MODEL, "the paper", share, percent / 100, None, None) for share, percent in paper.SHARES.items()]
    return pl.concat([ours, pl.DataFrame(theirs, schema=PAPER_SHARES, orient="row")])


def paper_agreement_table(groups: pl.DataFrame) -> pl.DataFrame:
    """The agreement of kinds of annotators (s4.1), from the table `agreement_groups`."""
    names = pl.format("{} – {}", "group_a", "group_b")
    ours = groups.select(pl.lit("this run").alias("source"), names.alias("annotators"), "agreement", "low", "high")
    theirs = [(paper.MODEL, f"{a} – {b}", percent / 100, None, None) for a, b, percent in paper.AGREEMENT]
    return pl.concat([ours, pl.DataFrame(theirs, schema=PAPER_AGREEMENT, orient="row")])
