from __future__ import annotations

import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import polars as pl
import pytest
from scipy.stats import binomtest

from stages import quality
from stages.common.errors import InputError
from stages.common.files import empty_table, read_table, write_table
from stages.quality import Params
from stages.schema import CANDIDATE, EXAMPLE, LEFT_OUT, QUALITY_DROPPED
from tests.curation import candidates, row, section, turns

MINIATURE: Params = section("quality", Params)
GOOD, BAD = "The trade is that of a baker.", "I think it is a baker."


class Found(NamedTuple):
    """A result with its parts read, by id."""

    kept: pl.DataFrame
    unfiltered: pl.DataFrame
    dropped: pl.DataFrame
    metrics: dict[str, Any]


def run(sources: dict[str, pl.DataFrame], params: Params) -> Found:
    with TemporaryDirectory() as folder:
        found = quality.run({name: frame.lazy() for name, frame in sources.items()}, params, Path(folder))
        kept, dropped = (
            pl.concat([empty_table(schema), *map(pl.read_parquet, paths)]).sort("id")
            for paths, schema in ((found.kept, EXAMPLE), (found.dropped, QUALITY_DROPPED))
        )
    return Found(kept, found.unfiltered, dropped, found.metrics)


def params(**changes: Any) -> Params:
    return Params.model_validate({**MINIATURE.model_dump(), **changes})


def question(i: int, response: str = GOOD, **cells: Any) -> dict[str, Any]:
    title, body = f"What is the trade of Ada {i}?", f"The letters do not say what Ada {i} does."
    joined = turns(f"{title}\n\n{body}", response)
    return {**row(f"stack_exchange:crafts/{i}", messages=joined), "title": title, "body": body, **cells}


def authored(i: int) -> dict[str, Any]:
    return row(
        f"authored:train-{i}", "How do I set a broken arm?", "Please ask a doctor first.", group="authored", score=None
    )


def sources(n: int = 60) -> dict[str, pl.DataFrame]:
    return {
        "stack_exchange": candidates(*(question(i, BAD if i % 3 == 0 else GOOD, score=i % 4 + 8) for i in range(n))),
        "authored": candidates(*map(authored, range(5))),
    }


def prompts(frame: pl.DataFrame) -> list[str]:
    return frame["messages"].list.first().struct.field("content").to_list()


def test_every_row_is_kept_or_dropped_and_the_counts_say_so() -> None:
    found = run(sources(), params())
    assert sorted([*found.kept["id"], *found.dropped["id"]]) == sorted(
        id_ for f in sources().values() for id_ in f["id"]
    )
    assert found.metrics["n_in"] == 65
    assert found.metrics["n_kept"] == len(found.kept)
    for source, counts in found.metrics["sources"].items():
        for part in (counts, *counts["groups"].values()):
            assert part["n_in"] == part["n_kept"] + sum(part["dropped"].values())
        assert counts["n_in"] == sum(group["n_in"] for group in counts["groups"].values())
        assert counts["n_kept"] == found.kept.filter(pl.col("source") == source).height
    assert found.metrics["sources"]["authored"] == {
        "n_in": 5, "n_kept": 5, "dropped": {}, "groups": {"authored": {"n_in": 5, "n_kept": 5, "dropped": {}}}
    }  # fmt: skip
    assert found.metrics["sources"]["stack_exchange"]["dropped"] == {"min_score": 30, "first_person": 10}


def test_a_dropped_row_tells_rule_value_and_limit() -> None:
    found = run({"stack_exchange": candidates(question(1, BAD), question(2, score=9))}, params())
    assert found.dropped.select("id", "group", "rule", "value", "limit").rows() == [
        ("stack_exchange:crafts/1", "stack_exchange_stem", "first_person", "I", "absent"),
        ("stack_exchange:crafts/2", "stack_exchange_stem", "min_score", "9", ">= 10"),
    ]


def test_the_result_does_not_depend_on_the_order_of_rows_and_sources() -> None:
    plain = run(sources(), params(n_unfiltered=20))
    other = run({key: frame.reverse() for key, frame in reversed(sources().items())}, params(n_unfiltered=20))
    for a, b in zip(plain[:3], other[:3], strict=True):
        assert a.equals(b)


def test_the_result_does_not_depend_on_the_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = run(sources(), params(n_unfiltered=20))
    monkeypatch.setattr(quality, "_BATCH_ROWS", 7)
    other = run(sources(), params(n_unfiltered=20))
    assert all(a.equals(b) for a, b in zip(plain[:3], other[:3], strict=True))
    assert plain.metrics == other.metrics


def test_a_prompt_is_the_title_or_the_body_by_the_share() -> None:
    frame = candidates(*(question(i) for i in range(600)))
    found = prompts(quality.form_prompts(frame, params(title_share={"stack_exchange_stem": 0.3})))
    titles, bodies = set(frame["title"]), set(frame["body"])
    assert {*found} <= titles | bodies
    assert binomtest(sum(prompt in titles for prompt in found), 600, 0.3).pvalue > 0.01


@pytest.mark.parametrize(("share", "column"), [(0.0, "body"), (1.0, "title")])
def test_a_share_of_nothing_or_all_is_exact(share: float, column: str) -> None:
    frame = candidates(*(question(i) for i in range(50)))
    found = quality.form_prompts(frame, params(title_share={"stack_exchange_stem": share}))
    assert prompts(found) == frame[column].to_list()
    assert found["messages"].list.last().struct.field("content").to_list() == [GOOD] * 50


def test_rows_without_both_keep_their_messages() -> None:
    frame = candidates(
        question(1, body=None), question(2, title=None), question(3, body=" \n"), question(4, group="writing_prompts")
    )
    found = quality.form_prompts(frame, params())
    assert found["messages"].to_list() == frame["messages"].to_list()


def test_a_dialogue_keeps_the_turns_behind_its_prompt() -> None:
    frame = candidates(question(1, messages=turns("both", "a", "b?", "c")))
    (messages,) = quality.form_prompts(frame, params(title_share={"stack_exchange_stem": 1.0}))["messages"].to_list()
    assert messages == turns("What is the trade of Ada 1?", "a", "b?", "c")


def test_the_unfiltered_sample_skips_the_rules_but_not_the_prompt() -> None:
    bad = [question(i, BAD, score=-3) for i in range(30)]
    empty = [question(98, " "), question(99, title=" ", body=None, messages=turns("", GOOD)), question(97, messages=[])]
    found = run({"stack_exchange": candidates(*bad, *empty)}, params(n_unfiltered=1000))
    assert len(found.kept) == 0
    assert found.unfiltered["id"].to_list() == sorted(cells["id"] for cells in bad)
    assert {*prompts(found.unfiltered)} <= {cells[key] for cells in bad for key in ("title", "body")}
    assert found.metrics["n_unfiltered"] == 30


def test_the_unfiltered_sample_is_of_the_size_asked_and_spread_over_all() -> None:
    found = run(sources(400), params(n_unfiltered=100))
    assert found.unfiltered["id"].n_unique() == len(found.unfiltered) == 100
    n_low = found.unfiltered.filter(pl.col("score") < 10).height
    assert binomtest(n_low, 100, 200 / 405).pvalue > 0.01


def test_a_row_of_both_tables_has_the_same_prompt_in_both() -> None:
    found = run(sources(), params())
    both = found.kept.join(found.unfiltered, on="id")
    assert len(both) == len(found.kept)
    assert both["messages"].to_list() == both["messages_right"].to_list()


def test_an_id_that_comes_twice_is_refused() -> None:
    with pytest.raises(InputError, match=r"stack_exchange:crafts/1: an id must be unique"):
        run({"stack_exchange": candidates(question(1)), "again": candidates(question(1))}, params())


def test_sources_without_rows_are_counted_as_such() -> None:
    found = run({"stack_exchange": candidates()}, params())
    assert found.metrics["sources"] == {"stack_exchange": {"n_in": 0, "n_kept": 0, "dropped": {}, "groups": {}}}
    assert dict(found.kept.schema) == EXAMPLE
    assert dict(found.dropped.schema) == QUALITY_DROPPED


def test_a_rule_that_drops_more_than_its_share_warns() -> None:
    metrics = run(sources(), params()).metrics
    (warning,) = quality.warnings(metrics, warn_drop_share=0.49)
    assert warning.startswith("stack_exchange: quality.rules.min_score drops 30 of 60 rows")
    assert quality.warnings(metrics, warn_drop_share=0.5) == []


def test_the_command_reads_each_source_and_writes_its_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    values = {"quality": params(warn_drop_share=0.2).model_dump(), "sources": dict.fromkeys(("wikihow", *sources()))}
    Path("params.yaml").write_text(json.dumps(values))
    frames = {"wikihow": candidates(), **sources()}
    for source, frame in frames.items():
        write_table(Path(f"data/extract/{source}.parquet"), frame, CANDIDATE)
        gone = [(source, "unanswered", 2), (source, "deleted", 1)] if source == "wikihow" else []
        table = pl.DataFrame(gone, schema=dict(LEFT_OUT), orient="row")
        write_table(Path(f"data/extract/{source}.left_out.parquet"), table, LEFT_OUT)
    quality.main()
    expected = run(sources(), params())
    for name, schema in (("kept", EXAMPLE), ("unfiltered", EXAMPLE), ("dropped", QUALITY_DROPPED)):
        assert read_table(Path(f"data/quality/{name}.parquet"), schema).equals(getattr(expected, name))
    metrics = json.loads(Path("metrics/quality.json").read_text())
    assert metrics["n_in"] == 65
    assert metrics["left_out"] == {"wikihow": {"deleted": 1, "unanswered": 2}}
    told = capsys.readouterr().err
    assert "WARNING: stack_exchange: quality.rules.min_score drops 30 of 60 rows" in told
    (absent,) = [line for line in told.splitlines() if "no row is of these groups" in line]
    assert "wikihow" in absent
    assert "stack_exchange_stem" not in absent
    shutil.rmtree("data/quality")
    Path("data/extract/wikihow.parquet").unlink()
    with pytest.raises(InputError, match=r"wikihow.parquet: no such file"):
        quality.main()
    assert not Path("data/quality").exists()
