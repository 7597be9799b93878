"""score: turn verdicts, grades and checkable answers into numbers with intervals.

Reads data/prompts/{test,dev}.parquet (schema.PROMPT); of every arm data/respond/, data/generate/ (and .perplexity),
data/select_checkpoint/ and data/grade/<arm>.parquet; of every opponent data/respond_opponent/ and
data/judge/<opponent>.parquet; of whoever answers data/*/<name>.asked.parquet (schema.ASKED); data/annotations/*.jsonl.
Writes metrics/score.json and metrics/score/*.csv, one for each field of Tables. In each, n is what the rate or mean
beside it is over; a number that does not exist is an empty cell, and a rate of nothing has no row.

LIMA s4.2 (win, tie, lose), s4.3 (tie-discounted agreement, Fail, Pass, Excellent, safety), s5 (mean grades), Appendix B
(checkpoints). Ours: both orders (stages/core/preferences.py), intervals over prompts (stages/core/intervals.py), kappa,
alpha and tie rates beside agreement, the smallest difference that so many prompts can show, rates at equal lengths
(stages/core/length_control.py), the lean to the answer shown first (position.py), strengths of all contestants
(bradley_terry.py), and checkable answers. Verdicts that failed are out of every rate and counted; above
score.max_unscored_share of those an annotator could have given, the run fails; the stage that judged is then forced
to ask again, for DVC sees no change. `no_reference` is no failure: the annotator does not apply to that prompt. People
are annotators one by one; a kind of several has rows of its own, `all <kind>`, in which each verdict counts once.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import polars as pl
from pydantic import ConfigDict, Field

from stages.common.errors import InputError, JudgeError
from stages.common.files import read_table, write_csv, write_json
from stages.common.main import run_stage
from stages.common.params import check_named, load_params
from stages.common.section import Named, Section
from stages.core.accuracy import measure_answers
from stages.core.agreement_tables import agreement_groups_table, agreement_table
from stages.core.arms import Arms
from stages.core.intervals import Intervals
from stages.core.judging import NO_REFERENCE, Answer, Prompt
from stages.core.paper_tables import paper_agreement_table, paper_preferences_table, paper_shares_table
from stages.core.people import current, kinds_of, pooled
from stages.core.preferences import ITEM, resolve
from stages.core.presentations import Key, answers_by_key, prompts_by_id
from stages.core.score_tables import (
    Curve,
    accuracy_table,
    bradley_terry_table,
    checkpoints_table,
    difference_table,
    grades_table,
    groups,
    lengths_table,
    pairwise_table,
    position_table,
    shares_table,
    win_rate_table,
)
from stages.core.spending import spending
from stages.runtime.people import read_people
from stages.schema import ASKED, EPOCH_GRADE, EPOCH_RESPONSE, GRADE, PERPLEXITY, PROMPT, RESPONSE, STANDING, VERDICT


class Params(Section):
    """How intervals are made, and how many failures are too many."""

    seed: Annotated[int, Field(ge=0)]
    n_bootstrap: Annotated[int, Field(ge=100, le=1_000_000)]
    confidence: Annotated[float, Field(gt=0, lt=1)]
    max_unscored_share: Annotated[float, Field(ge=0, le=1)]


class Judged(Section, extra="ignore"):
    """What the score reads of section `judge`."""

    arm: str


class Panel(Section, extra="ignore"):
    """An annotator, of which only people matter here."""

    kind: str
    names: list[str] = Field(default=[])


class Panels(Section):
    """Section `annotators`."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Panel]

    def of_people(self) -> dict[str, list[str]]:
        """Patterns of names, by panel."""
        return {name: panel.names for name, panel in self.__pydantic_extra__.items() if panel.kind == "people"}


class Frames(NamedTuple):
    """What is read; maps are by arm or by opponent."""

    test: pl.DataFrame
    dev: pl.DataFrame
    generated: Mapping[str, pl.DataFrame]
    perplexity: Mapping[str, pl.DataFrame]
    epoch_grades: Mapping[str, pl.DataFrame]
    epoch_verdicts: Mapping[str, pl.DataFrame]
    standings: Mapping[str, pl.DataFrame]
    responses: Mapping[str, pl.DataFrame]
    grades: Mapping[str, pl.DataFrame]
    opponent_responses: Mapping[str, pl.DataFrame]
    verdicts: Mapping[str, pl.DataFrame]
    asked: Sequence[pl.DataFrame]  # of every arm and opponent
    people: pl.DataFrame


class Tables(NamedTuple):
    """What is written: one csv each, named by its field, and the summary of them."""

    pairwise: pl.DataFrame
    win_rate: pl.DataFrame
    bradley_terry: pl.DataFrame
    position: pl.DataFrame
    accuracy: pl.DataFrame
    difference: pl.DataFrame
    agreement: pl.DataFrame
    agreement_groups: pl.DataFrame
    checkpoints: pl.DataFrame
    grades: pl.DataFrame
    shares: pl.DataFrame
    lengths: pl.DataFrame
    paper_preferences: pl.DataFrame
    paper_shares: pl.DataFrame
    paper_agreement: pl.DataFrame
    summary: dict[str, Any]


def run(frames: Frames, params: Params, *, arm: str, panels: Mapping[str, Sequence[str]]) -> Tables:
    """Score everything about the judged arm, its opponents and the other arms.

    Args:
        frames: what is read.
        params: how it is scored.
        arm: the judged arm.
        panels: people who are a panel: patterns of their names, by its name.

    Raises:
        InputError: tables do not belong together.
        JudgeError: too many verdicts or grades failed.
    """
    _check_unscored(frames, params.max_unscored_share)
    intervals = Intervals(params.seed, params.n_bootstrap, params.confidence)
    prompts = prompts_by_id(frames.test)
    answers = _answers(frames, prompts)
    opponents = list(frames.opponent_responses)
    measured = {name: measure_answers(given, prompts) for name, given in answers.items()}
    people = current(frames.people, answers, arm=arm, opponents=opponents)
    verdicts = pl.concat([pl.DataFrame(schema=VERDICT), *frames.verdicts.values()])
    pairs = _pairs(verdicts, people.verdicts, arm=arm)
    kinds = kinds_of(pairs["annotator"].unique(), set(people.verdicts["annotator"]), panels)
    each_and_all = pl.concat([pairs, pooled(pairs, kinds)])
    malicious = set(frames.test.filter("malicious")["id"])
    tables = {
        "pairwise": pairwise_table(each_and_all, intervals),
        "win_rate": win_rate_table(each_and_all, answers, intervals),
        "bradley_terry": bradley_terry_table(each_and_all, anchor=arm, intervals=intervals),
        "position": position_table(verdicts, intervals),
        "accuracy": accuracy_table(measured, intervals),
        "difference": difference_table(measured, a=arm, opponents=opponents, intervals=intervals),
        "agreement": agreement_table(pairs, intervals),
        "agreement_groups": agreement_groups_table(pairs, kinds, intervals),
        "checkpoints": checkpoints_table(_curves(frames), intervals),
        "grades": grades_table(frames.grades, intervals),
        "shares": shares_table(frames.grades, malicious, intervals),
        "lengths": lengths_table(answers),
    }
    beside = {
        "paper_preferences": paper_preferences_table(tables["pairwise"], arm=arm),
        "paper_shares": paper_shares_table(tables["shares"]),
        "paper_agreement": paper_agreement_table(tables["agreement_groups"]),
    }
    judged = (frames.grades, frames.epoch_grades, frames.epoch_verdicts)
    said = [verdicts, *(table for tables in judged for table in tables.values())]
    spent = {
        "answering": spending([pl.DataFrame(schema=ASKED), *frames.asked], by="responder"),
        "judging": spending(said, by="annotator"),
    }
    summary = _summary(tables, each_and_all, frames.grades) | {"annotations": people.counts}
    return Tables(**tables, **beside, summary=summary | ({"spent": spent} if any(spent.values()) else {}))


def _answers(frames: Frames, prompts: Mapping[str, Prompt]) -> dict[str, dict[Key, Answer]]:
    """Everyone's answers by name, arms first. An opponent named as an arm must be that arm."""
    answers = {
        name: answers_by_key(frame, name=f"data/respond/{name}.parquet", prompts=prompts)
        for name, frame in frames.responses.items()
    }
    for name, frame in frames.opponent_responses.items():
        given = answers_by_key(frame, name=f"data/respond_opponent/{name}.parquet", prompts=prompts)
        if answers.setdefault(name, given) != given:
            raise InputError(
                f"params.yaml: opponents.{name}: an opponent with the name of an arm must give that arm's answers, got "
                f"others; rename it"
            )
    return answers


def _pairs(verdicts: pl.DataFrame, people: pl.DataFrame, *, arm: str) -> pl.DataFrame:
    """Every annotator's pairs (stages/core/preferences.py), models' and people's."""
    machine = resolve(verdicts)
    others = machine.filter(pl.col("a") != arm)
    if not others.is_empty():
        raise InputError(f"data/judge: must judge {arm!r}, got verdicts about {others['a'][0]!r}; run `judge` again")
    both = set(people["annotator"]) & set(machine["annotator"])
    if both:
        raise InputError(
            f"data/annotations: a person's name must not be that of an annotator of params.yaml, got {min(both)!r}; "
            "rename one"
        )
    return pl.concat([machine, resolve(people)]).sort(*ITEM, "annotator")


def _curves(frames: Frames) -> dict[str, Curve]:
    prompts = prompts_by_id(frames.dev)
    curves = {}
    for arm, grades in frames.epoch_grades.items():
        exact: dict[int, float | None] = {}
        for (epoch,), given in groups(frames.generated[arm], "epoch"):
            answers = answers_by_key(given, name=f"data/generate/{arm}.parquet", prompts=prompts)
            right = measure_answers(answers, prompts)["exact"].to_list()
            exact[epoch] = sum(right) / len(right) if right else None
        perplexity = dict(frames.perplexity[arm].select("epoch", "perplexity").iter_rows())
        curves[arm] = Curve(frames.standings[arm], grades, exact, perplexity)
    return curves


def _check_unscored(frames: Frames, max_share: float) -> None:
    tables = [("judge", name, "", table) for name, table in frames.verdicts.items()]
    tables += [("grade", name, "", table) for name, table in frames.grades.items()]
    tables += [("select_checkpoint", name, "", table) for name, table in frames.epoch_grades.items()]
    tables += [("select_checkpoint", name, ".verdicts", table) for name, table in frames.epoch_verdicts.items()]
    for stage, name, suffix, table in tables:
        applicable = table.filter(pl.col("unscored_reason").ne_missing(NO_REFERENCE))
        for (annotator,), some in groups(applicable, "annotator"):
            reasons = some["unscored_reason"].drop_nulls()
            if reasons.len() > max_share * some.height:
                raise JudgeError(
                    f"data/{stage}/{name}{suffix}.parquet: score.max_unscored_share is {max_share:g}, got "
                    f"{reasons.len()} of {some.height} unscored by {annotator!r} ({_told(reasons)}); mend the "
                    f"annotator and run `dvc repro --force --single-item {stage}@{name}`, which asks for those again, "
                    "or raise the share"
                )


def _told(reasons: pl.Series) -> str:
    counts = reasons.value_counts().sort(["count", reasons.name], descending=[True, False])
    return ", ".join(f"{n} {reason}" for reason, n in counts.iter_rows())


def _summary(
    tables: Mapping[str, pl.DataFrame], pairs: pl.DataFrame, grades: Mapping[str, pl.DataFrame]
) -> dict[str, Any]:
    """The numbers that people compare between runs, and what is behind them that no table shows."""
    checkpoints = tables["checkpoints"].filter(pl.col("selected") == 1)
    return {
        "accuracy": _accuracy(tables["accuracy"]),
        "difference": _difference(tables["difference"]),
        "pairwise": _pairwise(tables["pairwise"], tables["win_rate"], pairs),
        "position": {
            row["annotator"]: {k: row[k] for k in ("n", "bias", "p_value")} for row in _rows(tables["position"])
        },
        "agreement": _agreement(tables["agreement_groups"]),
        "grade": _grade(tables["grades"], tables["shares"], grades),
        "selected_epoch": dict(checkpoints.select("arm", "epoch").iter_rows()),
    }


def _accuracy(table: pl.DataFrame) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for row in table.iter_rows(named=True):
        found.setdefault(row["responder"], {"n": row["n"]})[row["measure"]] = row["rate"]
    return found


def _difference(table: pl.DataFrame) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for row in table.iter_rows(named=True):
        numbers = {key: row[key] for key in ("n", "difference", "low", "high")}
        found.setdefault(row["b"], {})[row["measure"]] = numbers
    return found


def _rows(table: pl.DataFrame) -> Iterator[dict[str, Any]]:
    return table.iter_rows(named=True)


def _agreement(table: pl.DataFrame) -> dict[str, Any]:
    """By kind and kind of annotators; what does not exist is absent."""
    keys = ("n", "agreement", "kappa", "alpha")
    found: dict[str, Any] = {}
    for row in _rows(table):
        numbers = {key: row[key] for key in keys if row[key] is not None}
        found.setdefault(row["group_a"], {})[row["group_b"]] = numbers
    return found


def _pairwise(table: pl.DataFrame, win_rate: pl.DataFrame, pairs: pl.DataFrame) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for (opponent, annotator), some in groups(pairs, "b", "annotator"):
        n = {state: int((some["outcome"] == state).sum()) for state in ("unscored", "not_applicable")}
        counts = {"n": some.height - sum(n.values()), **{f"n_{state}": count for state, count in n.items()}}
        found.setdefault(opponent, {})[annotator] = counts
    for row in table.iter_rows(named=True):
        found[row["opponent"]][row["annotator"]][row["outcome"]] = row["rate"]
    for row in _rows(win_rate):
        keys = ("win_rate", "minimum_detectable", "length_controlled")
        found[row["opponent"]][row["annotator"]] |= {key: row[key] for key in keys if row[key] is not None}
    return found


def _grade(table: pl.DataFrame, shares: pl.DataFrame, grades: Mapping[str, pl.DataFrame]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for arm, given in grades.items():
        for (annotator,), some in groups(given, "annotator"):
            n, n_not_applicable = some["helpfulness"].count(), int((some["unscored_reason"] == NO_REFERENCE).sum())
            counts = {"n": n, "n_unscored": some.height - n - n_not_applicable, "n_not_applicable": n_not_applicable}
            found.setdefault(arm, {})[annotator] = counts
    for row in table.iter_rows(named=True):
        found[row["responder"]][row["annotator"]]["mean_helpfulness"] = row["mean_helpfulness"]
    for row in _rows(shares):
        found[row["responder"]][row["annotator"]].setdefault("share", {})[row["share"]] = row["rate"]
    return found


def main() -> None:
    """Score the run."""
    params = load_params("score", Params)
    judged = load_params("judge", Judged)
    arms, opponents = load_params("arms", Arms).names, load_params("opponents", Named).names
    check_named(judged.arm, "arms", where="judge.arm")
    panels = load_params("annotators", Panels).of_people()
    tables = run(_read(arms, opponents), params, arm=judged.arm, panels=panels)
    for name, table in tables._asdict().items():
        if name != "summary":
            write_csv(Path(f"metrics/score/{name}.csv"), table)
    write_json(Path("metrics/score.json"), tables.summary)


def _read(arms: Sequence[str], opponents: Sequence[str]) -> Frames:
    def tables(
        stage: str, names: Sequence[str], schema: Mapping[str, pl.DataType], suffix: str = ""
    ) -> dict[str, pl.DataFrame]:
        return {name: read_table(Path(f"data/{stage}/{name}{suffix}.parquet"), schema) for name in names}

    return Frames(
        test=read_table(Path("data/prompts/test.parquet"), PROMPT),
        dev=read_table(Path("data/prompts/dev.parquet"), PROMPT),
        generated=tables("generate", arms, EPOCH_RESPONSE),
        perplexity=tables("generate", arms, PERPLEXITY, ".perplexity"),
        epoch_grades=tables("select_checkpoint", arms, EPOCH_GRADE),
        epoch_verdicts=tables("select_checkpoint", arms, VERDICT, suffix=".verdicts"),
        standings=tables("select_checkpoint", arms, STANDING, suffix=".standing"),
        responses=tables("respond", arms, RESPONSE),
        grades=tables("grade", arms, GRADE),
        opponent_responses=tables("respond_opponent", opponents, RESPONSE),
        verdicts=tables("judge", opponents, VERDICT),
        asked=[
            table
            for stage, names in (("generate", arms), ("respond", arms), ("respond_opponent", opponents))
            for table in tables(stage, names, ASKED, ".asked").values()
        ],
        people=read_people(Path("data/annotations")),
    )


if __name__ == "__main__":
    run_stage(main)
