"""score: the stage as a whole, on the files of a run that is judged here."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from stages import grade, judge, score, select_checkpoint
from stages.common.errors import InputError, JudgeError, ParamsError
from stages.common.files import read_table, write_table
from stages.common.params import load_params
from stages.core.agreement_tables import MEASURED
from stages.core.score_tables import WIN_RATE
from stages.schema import ASKED, RESPONSE, VERDICT
from tests.judged_run import PARAMS, command, responses, with_model, write_run
from tests.runtime.chat_server import completion, serving

ROOT = Path(__file__).parents[1]

COLUMNS = {
    "pairwise": "opponent,annotator,outcome,n,rate,low,high",
    "win_rate": ",".join(WIN_RATE),
    "bradley_terry": "annotator,responder,n,strength,low,high",
    "position": "annotator,n,bias,low,high,n_first,n_second,p_value",
    "shares": "responder,annotator,share,n,rate,low,high",
    "lengths": "responder,n,mean_chars,median_chars",
    "paper_preferences": "source,annotator,opponent,outcome,rate",
    "paper_shares": "source,annotator,share,rate,low,high",
    "paper_agreement": "source,annotators,agreement,low,high",
    "accuracy": "responder,measure,n,rate,low,high",
    "difference": "a,b,measure,n,difference,low,high",
    "agreement": "annotator_a,annotator_b," + ",".join(MEASURED),
    "agreement_groups": "group_a,group_b," + ",".join(MEASURED),
    "checkpoints": "arm,epoch,n,mean_helpfulness,low,high,exact_rate,perplexity,by,quality,behind,error,selected",
    "grades": "responder,annotator,n,mean_helpfulness,low,high,fail_rate,pass_rate,excellent_rate,n_safety,safe_rate",
}


@pytest.fixture(autouse=True)
def _judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(tmp_path)
    monkeypatch.chdir(tmp_path)
    Path("data/annotations").mkdir()
    for opponent in ("base", "bulk"):
        judge.main(opponent)
    for arm in ("curated", "bulk"):
        grade.main(arm)
        select_checkpoint.main(arm)


def scored() -> dict[str, Any]:
    score.main()
    summary: dict[str, Any] = json.loads(Path("metrics/score.json").read_text())
    return summary


def table(name: str) -> pl.DataFrame:
    return pl.read_csv(f"metrics/score/{name}.csv")


def told(summary: dict[str, Any], opponent: str, annotator: str, *keys: str) -> dict[str, Any]:
    found = summary["pairwise"][opponent][annotator]
    return {key: found[key] for key in keys}


OUTCOMES = ("n", "n_unscored", "n_not_applicable", "win", "tie", "lose", "inconsistent")


def say(**changes: Any) -> None:
    line = {"prompt_id": "test:p0", "sample": 0, "a": "curated", "b": "bulk", "annotator": "ann", "preference": "a"}
    with Path("data/annotations/a.jsonl").open("a") as file:
        file.write(json.dumps(line | changes) + "\n")


def test_the_summary_is_worked_out_by_hand() -> None:
    summary = scored()
    assert summary["accuracy"] == {
        "curated": {"n": 4, "exact": 0.75, "contains": 0.75, "finished": 1.0},
        "bulk": {"n": 4, "exact": 0.5, "contains": 0.75, "finished": 1.0},
        "base": {"n": 4, "exact": 0.0, "contains": 0.5, "finished": 0.0},
    }
    assert {key: row["exact"]["difference"] for key, row in summary["difference"].items()} == {
        "base": 0.75,
        "bulk": 0.25,
    }
    reference = {"n": 4, "n_unscored": 0, "n_not_applicable": 1, "tie": 0.25, "inconsistent": 0.0}
    assert told(summary, "bulk", "reference", *OUTCOMES) == {**reference, "win": 0.5, "lose": 0.25}
    assert told(summary, "base", "reference", *OUTCOMES) == {**reference, "win": 0.75, "lose": 0.0}
    assert told(summary, "base", "reference", "win_rate") == {"win_rate": 0.875}
    assert summary["pairwise"]["bulk"]["length"]["n"] == 5
    assert summary["grade"]["bulk"]["reference"] == {
        "n": 4, "n_unscored": 0, "n_not_applicable": 1, "mean_helpfulness": 4.0,
        "share": {"Fail": 0.25, "Pass": 0.25, "Excellent": 0.5},
    }  # fmt: skip
    assert summary["position"]["reference"] == {"n": 8, "bias": 0.0, "p_value": 1.0}
    assert summary["agreement"]["length"]["reference"]["n"] == 8
    assert summary["selected_epoch"] == {"curated": 10, "bulk": 10}
    assert summary["annotations"] == {"n_used": 0, "n_other": 0, "n_stale": 0}


def test_what_answers_and_verdicts_cost_stands_in_the_metrics() -> None:
    assert "spent" not in scored()
    with serving(lambda body, _: completion("OUTCOME: Pass\n4" if "<answer>" in str(body) else "VERDICT: B")) as server:
        with_model(server, "judge")
        command("stages.judge", "bulk")
        asked = [{**dict.fromkeys(ASKED), "responder": "curated", "request": f"r{i}", "n_prompt_tokens": 10,
                  "n_reply_tokens": 2, "cost": 0.25 if i else None} for i in range(3)]  # fmt: skip
        for stage in ("generate", "respond"):
            rows = asked[:2] if stage == "generate" else asked[2:]
            write_table(Path(f"data/{stage}/curated.asked.parquet"), pl.DataFrame(rows, schema=ASKED), ASKED)
        spent = scored()["spent"]
    assert spent["answering"] == {
        "curated": {"n_requests": 3, "n_uncounted": 1, "n_prompt_tokens": 30, "n_reply_tokens": 6, "cost": 0.5}
    }
    assert spent["judging"]["gpt"]["n_requests"] == 9
    assert spent["judging"]["gpt"]["cost"] == pytest.approx(9 * (7 + 3 * 2) / 1e6, abs=1e-6)


def test_every_table_has_its_columns() -> None:
    scored()
    for name, columns in COLUMNS.items():
        assert Path(f"metrics/score/{name}.csv").read_text().splitlines()[0] == columns
    taken = table("checkpoints").filter(pl.col("selected") == 1)
    assert taken.select("arm", "epoch", "exact_rate", "perplexity").rows() == [
        ("curated", 10, 1.0, 15.0), ("bulk", 10, 1.0, 15.0)
    ]  # fmt: skip
    assert Path("metrics/score/grades.csv").read_text().splitlines()[1].endswith(",0,")


def test_a_run_without_opponents_and_references_has_headers_and_no_numbers() -> None:
    from stages.schema import PROMPT
    from tests.judged_run import prompts

    params = {**PARAMS, "opponents": {}}
    Path("params.yaml").write_text(json.dumps(params))
    write_table(Path("data/prompts/test.parquet"), prompts("test", 5, n_bare=5), PROMPT)
    for arm in ("curated", "bulk"):
        grade.main(arm)
    summary = scored()
    for name in COLUMNS.keys() - {"checkpoints", "lengths"}:
        if name.startswith("paper_"):
            assert set(table(name)["source"]) == {"LIMA 65B"}
            continue
        assert Path(f"metrics/score/{name}.csv").read_text() == COLUMNS[name] + "\n"
    assert summary["accuracy"] == summary["pairwise"] == {}
    assert summary["grade"]["curated"]["reference"] == {"n": 0, "n_unscored": 0, "n_not_applicable": 5}


def test_the_tables_of_one_run_belong_together() -> None:
    scored()
    rates = {tuple(row[:2]): row for row in table("win_rate").rows()}
    for opponent, annotator in rates:
        some = table("pairwise").filter(opponent=opponent, annotator=annotator)
        by = dict(some.select("outcome", "rate").iter_rows())
        row = table("win_rate").filter(opponent=opponent, annotator=annotator).row(0, named=True)
        assert row["win_rate"] == pytest.approx(by["win"] + (by["tie"] + by["inconsistent"]) / 2, abs=1e-6)
        assert row["low"] <= row["win_rate"] <= row["high"]
    by_length = table("win_rate").filter(opponent="bulk", annotator="length").row(0, named=True)
    assert by_length["chars"] < by_length["opponent_chars"]
    assert by_length["length_controlled"] > by_length["win_rate"]  # equal lengths would help the shorter
    assert table("lengths").select("responder", "n", "mean_chars").rows()[0] == ("curated", 5, 3.0)
    strengths = table("bradley_terry").filter(annotator="reference")
    assert strengths["responder"].to_list() == ["curated", "bulk", "base"]
    assert strengths.row(0)[2:] == (8, 0.0, 0.0, 0.0)


def test_safe_answers_to_malicious_prompts_stand_apart() -> None:
    from stages.schema import GRADE, PROMPT

    prompts = read_table(Path("data/prompts/test.parquet"), PROMPT)
    asked = prompts.with_columns(safety=pl.Series([True] * 4 + [False]), malicious=pl.Series([True, *[False] * 4]))
    write_table(Path("data/prompts/test.parquet"), asked, PROMPT)
    path = Path("data/grade/bulk.parquet")
    safe = pl.Series("safe", [False, True, True, False, None])
    write_table(path, read_table(path, GRADE).with_columns(safe), GRADE)
    summary = scored()
    assert summary["grade"]["bulk"]["reference"]["share"] == {
        "Fail": 0.25, "Pass": 0.25, "Excellent": 0.5, "safe": 0.5, "safe, malicious": 0.0, "safe, other": 0.666667
    }  # fmt: skip
    shares = table("shares").filter(responder="bulk", share="safe, malicious").row(0, named=True)
    assert (shares["n"], shares["low"], round(shares["high"], 3)) == (1, 0.0, 0.793)  # Wilson's of 0 of 1


def test_the_same_inputs_give_the_same_bytes() -> None:
    scored()
    first = {path: path.read_bytes() for path in Path("metrics").rglob("*.*")}
    scored()
    assert {path: path.read_bytes() for path in Path("metrics").rglob("*.*")} == first


def test_people_are_annotators_beside_the_models() -> None:
    say()
    say(prompt_id="test:p1", a="bulk", b="curated", preference="a")
    say(prompt_id="test:p1", annotator="bo", preference="tie", response_a="v1", response_b="no idea")
    say(prompt_id="test:p2", annotator="bo", response_a="v2, earlier")
    say(b="gpt4")
    assert scored()["annotations"] == {"n_used": 3, "n_other": 1, "n_stale": 1}
    assert table("pairwise").filter(annotator="ann", outcome="lose").select("opponent", "n", "rate").rows() == [
        ("bulk", 2, 0.5)
    ]
    agreement = {(row["annotator_a"], row["annotator_b"]): row for row in table("agreement").iter_rows(named=True)}
    assert set(agreement) == {
        ("ann", "bo"), ("ann", "length"), ("ann", "reference"), ("bo", "length"), ("bo", "reference"),
        ("length", "reference"),
    }  # fmt: skip
    assert (agreement["ann", "bo"]["n"], agreement["ann", "bo"]["agreement"]) == (1, 0.5)
    assert (agreement["ann", "reference"]["n"], agreement["ann", "reference"]["agreement"]) == (2, 0.25)
    kinds = table("agreement_groups").filter(group_b="people").select("group_a", "n", "agreement").rows()
    assert kinds == [("length", 3, 0.666667), ("people", 1, 0.5)]


def test_a_panel_of_people_is_several_annotators_and_has_rates_together() -> None:
    for name, preference in (("ann", "a"), ("worker_1", "b"), ("worker_2", "tie"), ("bo", "a")):
        say(annotator=name, preference=preference)
        say(annotator=name, preference="a", prompt_id="test:p1")
    assert set(scored()["pairwise"]["bulk"]) == {
        "reference", "length", "ann", "bo", "worker_1", "worker_2", "all people", "all worker"
    }  # fmt: skip
    declared = {**PARAMS["annotators"], "panel": {"kind": "people", "names": ["worker_*", "ann"]}}
    Path("params.yaml").write_text(json.dumps({**PARAMS, "annotators": declared}))
    summary = scored()["pairwise"]["bulk"]
    assert set(summary) == {"reference", "length", "ann", "bo", "worker_1", "worker_2", "all panel"}
    assert {key: summary["all panel"][key] for key in ("n", "win", "tie", "lose")} == {
        "n": 6, "win": pytest.approx(4 / 6, abs=1e-6), "tie": pytest.approx(1 / 6, abs=1e-6),
        "lose": pytest.approx(1 / 6, abs=1e-6),
    }  # fmt: skip
    together = table("win_rate").filter(annotator="all panel").row(0, named=True)
    assert (together["n"], together["n_prompts"]) == (6, 2)  # intervals are over the prompts
    assert "all panel" in table("bradley_terry")["annotator"]
    kinds = table("agreement_groups").select("group_a", "group_b", "n").rows()
    assert ("panel", "panel", 6) in kinds  # three pairs of persons on each of two items
    assert ("panel", "people", 6) in kinds
    assert ("ann", "worker_1") in table("agreement").select("annotator_a", "annotator_b").rows()


@pytest.mark.parametrize("stage", ["judge", "grade", "select_checkpoint"])
def test_no_stage_asks_people(stage: str) -> None:
    changed = {**PARAMS, "annotators": {"crowd": {"kind": "people", "names": ["crowd_*"]}}}
    changed[stage] = {**PARAMS[stage], "annotators": ["crowd"]}
    Path("params.yaml").write_text(json.dumps(changed))
    with pytest.raises(ParamsError, match=r"annotators\.crowd: .* got people; take it out there, `score` reads"):
        {"judge": judge, "grade": grade, "select_checkpoint": select_checkpoint}[stage].main("bulk")


def test_a_person_named_as_a_model_is_an_error() -> None:
    say(annotator="length")
    with pytest.raises(InputError, match="a person's name must not be that of an annotator"):
        score.main()


def unscore(n_pairs: int, reason: str) -> None:
    path = Path("data/judge/bulk.parquet")
    verdicts = read_table(path, VERDICT)
    hit = (pl.col("annotator") == "length") & pl.col("prompt_id").is_in([f"test:p{i}" for i in range(n_pairs)])
    write_table(
        path,
        verdicts.with_columns(
            preference=pl.when(hit).then(None).otherwise("preference"),
            unscored_reason=pl.when(hit).then(pl.lit(reason)).otherwise("unscored_reason"),
        ),
        VERDICT,
    )


def test_failed_verdicts_are_out_of_every_rate_and_counted() -> None:
    unscore(1, "empty")
    assert told(scored(), "bulk", "length", *OUTCOMES) == {
        "n": 4, "n_unscored": 1, "n_not_applicable": 0, "win": 0.0, "tie": 0.25, "lose": 0.75, "inconsistent": 0.0
    }  # fmt: skip


def test_too_many_failed_verdicts_fail_the_run_with_a_sentence_and_write_nothing() -> None:
    unscore(2, "truncated")
    with pytest.raises(JudgeError, match=r"is 0\.2, got 4 of 10 unscored by 'length' \(4 truncated\)") as caught:
        score.main()
    assert "run `dvc repro --force --single-item judge@bulk`, which asks for those again" in str(caught.value)
    assert not Path("metrics").exists()


def test_verdicts_that_do_not_apply_fail_nothing() -> None:
    unscore(5, "no_reference")
    assert scored()["pairwise"]["bulk"]["length"] == {"n": 0, "n_unscored": 0, "n_not_applicable": 5}


def test_an_opponent_with_an_arms_name_but_other_answers_is_an_error() -> None:
    write_table(Path("data/respond_opponent/bulk.parquet"), responses("bulk", ["x"] * 5), RESPONSE)
    with pytest.raises(InputError, match="an opponent with the name of an arm must give that arm's answers"):
        score.main()


@pytest.mark.parametrize(
    ("change", "error", "told"),
    [
        ({"judge": {"arm": "best", "annotators": ["reference"]}}, ParamsError, "must be a key of arms, got 'best'"),
        ({"judge": {"arm": "bulk", "annotators": ["length"]}}, InputError, "'bulk', got verdicts about 'curated'"),
        ({"score": {**PARAMS["score"], "n_bootstrap": 0}}, ParamsError, "score.n_bootstrap: must be "),
        ({"arms": {"curated": {"sample": {}, "sft": {}, "x": 1}}}, ParamsError, "arms.curated.x: unknown key, got 1; "),
        ({"arms": {"curated": {"sample": {}}}}, ParamsError, "arms.curated.sft: missing; add it"),
        ({"opponents": {"base": {}, "gpt": {}}}, InputError, "data/respond_opponent/gpt.parquet: no such file"),
    ],
)  # fmt: skip
def test_params_that_do_not_fit_are_one_sentence(change: dict, error: type[Exception], told: str) -> None:
    Path("params.yaml").write_text(json.dumps({**PARAMS, **change}))
    with pytest.raises(error, match=told):
        score.main()


def test_exactly_the_named_arms_and_opponents_are_read() -> None:
    Path("data/respond/stray.parquet").write_text("not parquet")
    Path("data/judge/stray.parquet").write_text("not parquet")
    assert set(scored()["pairwise"]) == {"base", "bulk"}


def test_the_params_model_is_the_committed_section() -> None:
    assert load_params("score", score.Params, path=ROOT / "params.yaml").confidence == 0.95
