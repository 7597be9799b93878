from __future__ import annotations

import io
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pytest

from stages import dedup
from stages.common.errors import InputError
from stages.common.files import read_table, write_table
from stages.core.kernels import PLAIN
from stages.core.known import Findings, blank_findings
from stages.core.words import I64, U32, U64
from stages.dedup import Means, Params
from stages.schema import DEDUP_DROPPED, EXAMPLE, PROMPT
from tests.curation import ROOT, examples, prompts, row, section, turns

MINIATURE: Params = section("dedup", Params)
NONE = examples()
WORDS = [f"w{i}" for i in range(400)]
LONG = " ".join(WORDS[:60])
NEARLY = " ".join([*WORDS[:57], "x", "y", "z"])  # 53 of 56 shingles of 5, so J = 53 / 59
TEST_PROMPT = "In which town was Ada Marsh born?"


def params(**changes: Any) -> Params:
    return Params.model_validate({**MINIATURE.model_dump(), **changes})


class Result(NamedTuple):
    """As `stages.dedup.Result`, with frames."""

    kept: pl.DataFrame
    unfiltered: pl.DataFrame
    dropped: pl.DataFrame
    metrics: dict[str, Any]
    findings: Findings
    n_sketched: int


def run(kept: pl.DataFrame, unfiltered: pl.DataFrame, asked: pl.DataFrame, known: Findings | None = None) -> Result:
    means = Means(PLAIN, known or blank_findings(0, params().n_permutations), io.BytesIO())
    found = dedup.run(kept.lazy(), unfiltered.lazy(), asked, params(), means)
    return Result(found.kept.collect(), found.unfiltered.collect(), *found[2:])


def deduped(*rows: dict[str, Any], unfiltered: pl.DataFrame = NONE, asked: tuple[str, ...] = (TEST_PROMPT,)) -> Result:
    return run(examples(*rows), unfiltered, prompts(*asked))


def told(result: Result) -> list[tuple[Any, ...]]:
    return result.dropped.select("id", "rule", "partner_id", "similarity").rows()


def test_a_near_duplicate_names_the_kept_row_and_the_exact_jaccard() -> None:
    found = deduped(row("a:1", response=LONG, score=20), row("a:2", response=NEARLY, score=30))
    assert told(found) == [("a:1", "near_duplicate", "a:2", 53 / 59)]
    assert found.kept["id"].to_list() == ["a:2"]


def test_near_duplicates_are_found_across_sources() -> None:
    found = deduped(row("a:1", response=LONG), row("b:1", response=NEARLY, group="wikihow"))
    assert told(found) == [("b:1", "near_duplicate", "a:1", 53 / 59)]
    assert found.metrics["sources"]["b"]["dropped"]["near_duplicate"] == 1


@pytest.mark.parametrize(("scores", "kept"), [((5, 9), "a:2"), ((9, 5), "a:1"), ((5, 5), "a:1"), ((5, None), "a:2")])
def test_rows_without_votes_are_kept_first_then_by_score_then_by_id(scores: tuple[int, int | None], kept: str) -> None:
    found = deduped(*(row(f"a:{i}", response=LONG, score=score) for i, score in enumerate(scores, start=1)))
    assert found.kept["id"].to_list() == [kept]


def test_of_a_row_and_the_dialogue_that_goes_on_from_it_the_dialogue_is_kept() -> None:
    dialogue = turns("Why?", LONG, "Sure?", "Yes.")
    found = deduped(row("a:1", "Why?", LONG), row("a:2", messages=dialogue), row("a:3", "Why?", LONG))
    assert [(id_, partner) for id_, _, partner, _ in told(found)] == [("a:1", "a:2"), ("a:3", "a:2")]
    better = deduped(row("a:1", "Why?", LONG, score=9), row("a:2", messages=dialogue, score=5))
    assert better.kept["id"].to_list() == ["a:1"]


def test_a_short_response_may_answer_many_questions() -> None:
    found = deduped(row("a:1", "Where is Ada from?", "From Brastow."), row("a:2", "Where is Bo from?", "From Brastow."))
    assert told(found) == []


def test_the_same_short_answer_to_the_same_question_is_a_duplicate() -> None:
    found = deduped(
        row("a:1", "Where is Ada from?", "From Brastow."), row("a:2", "Where is ADA from ?", "From Brastow!")
    )
    assert told(found) == [("a:2", "near_duplicate", "a:1", 1.0)]


def test_another_short_answer_to_the_same_question_is_kept() -> None:
    found = deduped(row("a:1", "Where is Ada from?", "From Brastow."), row("a:2", "Where is Ada from?", "From Gen."))
    assert told(found) == []


def test_all_turns_of_a_dialogue_are_compared() -> None:
    halves = LONG[: len(LONG) // 2], LONG[len(LONG) // 2 :]
    dialogue = turns("Go on.", halves[0], "And then?", halves[1])
    found = deduped(row("a:1", messages=dialogue), row("a:2", messages=dialogue))
    assert told(found) == [("a:2", "near_duplicate", "a:1", 1.0)]


@pytest.mark.parametrize(
    ("prompt", "rule"),
    [
        (TEST_PROMPT, "same_prompt"),
        (TEST_PROMPT.upper(), "same_prompt"),
        ("In which town -- was Ada Marsh born", "same_prompt"),
        (f"The letters do not say. {TEST_PROMPT}", "contains_prompt"),
    ],
)
def test_a_row_that_holds_a_test_prompt_is_dropped_with_partner_and_span(prompt: str, rule: str) -> None:
    found = deduped(row("a:1", prompt))
    assert told(found) == [("a:1", rule, "authored:test-0000", 1.0)]
    assert found.dropped["span"].to_list() == ["in which town was ada marsh born"]


def test_a_test_prompt_in_a_response_or_a_later_turn_is_found() -> None:
    found = deduped(
        row("a:1", response=f"They asked: {TEST_PROMPT}"),
        row("a:2", messages=turns("Hello.", "Hello.", TEST_PROMPT, "In Brastow.")),
        row("a:3", "In which town was Bo Marsh born?"),
    )
    assert [(id_, rule) for id_, rule, *_ in told(found)] == [("a:1", "contains_prompt"), ("a:2", "same_prompt")]


def test_no_row_is_dropped_for_the_sake_of_a_contaminated_one() -> None:
    found = deduped(
        row("a:1", TEST_PROMPT, LONG, score=90), row("a:2", response=NEARLY), row("a:3", response=LONG, score=1)
    )
    assert [(id_, rule, partner) for id_, rule, partner, _ in told(found)] == [
        ("a:1", "same_prompt", "authored:test-0000"),
        ("a:3", "near_duplicate", "a:2"),
    ]


def test_the_unfiltered_sample_loses_contaminated_rows_and_nothing_else() -> None:
    twins = [row("a:1", response=LONG), row("a:2", response=LONG)]
    dirty = [row("a:3", TEST_PROMPT, "Dunno."), row("a:4", TEST_PROMPT)]
    found = deduped(*twins, dirty[1], unfiltered=examples(*twins, *dirty))
    assert found.unfiltered["id"].to_list() == ["a:1", "a:2"]
    assert [(id_, rule) for id_, rule, *_ in told(found)] == [
        ("a:2", "near_duplicate"), ("a:3", "same_prompt"), ("a:4", "same_prompt")
    ]  # fmt: skip
    zeros = {"same_prompt": 0, "contains_prompt": 0, "near_duplicate": 0}
    assert found.metrics == {
        "n_in": 3,
        "n_kept": 1,
        "sources": {"a": {"n_in": 3, "n_kept": 1, "dropped": {**zeros, "same_prompt": 1, "near_duplicate": 1}}},
        "unfiltered": {
            "n_in": 4, "n_kept": 2, "sources": {"a": {"n_in": 4, "n_kept": 2, "dropped": {**zeros, "same_prompt": 2}}}
        },
    }  # fmt: skip


def noisy(n: int) -> list[dict[str, Any]]:
    rng = random.Random(0)
    texts = [rng.choices(WORDS, k=rng.randrange(4, 40)) for _ in range(n // 4)]
    rows = []
    for i in range(n):
        words = list(rng.choice(texts))
        words[-1] = rng.choice(WORDS)
        prompt = TEST_PROMPT if rng.random() < 0.05 else f"Question {i % 7}?"
        rows.append(row(f"{'abc'[i % 3]}:{i:04d}", prompt, " ".join(words), score=rng.choice([None, 3, 4])))
    return rows


def test_the_counts_add_up_and_partners_are_kept() -> None:
    rows = noisy(400)
    found = deduped(*rows, unfiltered=examples(*rows[:100]))
    assert len(found.kept) + len(found.dropped) == 400
    assert {*found.kept["id"], *found.dropped["id"]} == {cells["id"] for cells in rows}
    repeated = found.dropped.filter(pl.col("rule") == "near_duplicate")
    assert len(repeated) > 50
    assert {*repeated["partner_id"]} <= {*found.kept["id"]}
    for tables in (found.metrics, found.metrics["unfiltered"]):
        for counts in tables["sources"].values():
            assert counts["n_in"] == counts["n_kept"] + sum(counts["dropped"].values())
        assert tables["n_kept"] == sum(counts["n_kept"] for counts in tables["sources"].values())


def test_the_result_does_not_depend_on_the_order_of_rows() -> None:
    rows = noisy(200)
    plain = deduped(*rows, unfiltered=examples(*rows[:50]))
    other = deduped(*rows[::-1], unfiltered=examples(*rows[:50][::-1]))
    assert all(a.equals(b) for a, b in zip(plain[:3], other[:3], strict=True))
    assert plain.metrics == other.metrics


def test_no_rows_give_no_rows() -> None:
    found = run(NONE, NONE, prompts())
    assert dict(found.kept.schema) == dict(found.unfiltered.schema) == EXAMPLE
    assert dict(found.dropped.schema) == DEDUP_DROPPED
    assert found.metrics["n_in"] == len(found.dropped) == 0


def set_up(folder: Path, kept: pl.DataFrame, unfiltered: pl.DataFrame = NONE) -> None:
    """Put the files there that the command reads."""
    (folder / "params.yaml").write_text(json.dumps({"dedup": params().model_dump()}))
    write_table(folder / "data/quality/kept.parquet", kept, EXAMPLE)
    write_table(folder / "data/quality/unfiltered.parquet", unfiltered, EXAMPLE)
    write_table(folder / "data/prompts/dev.parquet", prompts(), PROMPT)
    write_table(folder / "data/prompts/test.parquet", prompts(TEST_PROMPT), PROMPT)


def outs(folder: Path) -> dict[str, bytes]:
    paths = [*(folder / "data/dedup").iterdir(), folder / "metrics/dedup.json"]
    return {path.name: path.read_bytes() for path in paths}


LIMA_TEST = ROOT.parent / "shared/data/lima/test.jsonl"


@pytest.mark.skipif(not LIMA_TEST.exists(), reason="needs ../shared/data")
def test_copies_of_limas_test_prompts_are_dropped_from_prompts_and_responses() -> None:
    asked = [json.loads(line)["conversations"][0] for line in LIMA_TEST.read_text(encoding="utf-8").splitlines()]
    asked = [prompt for prompt in asked if len(prompt.split()) >= 10]

    def nine_of_ten(text: str) -> str:
        words = text.split()
        return " ".join(words[: len(words) - len(words) // 10])

    copies = {"plain": str, "cased": str.swapcase, "marked": lambda text: text.replace(" ", " , "), "cut": nine_of_ten}
    planted = [
        row(f"lima:{name}-{side}-{i:03d}", **cells)
        for name, copy in copies.items()
        for i, prompt in enumerate(asked)
        for side, cells in {
            "prompt": {"prompt": copy(prompt), "response": f"Answer {i} {name}."},
            "response": {"prompt": f"Question {i} {name}?", "response": f"You ask: {copy(prompt)} I say {i} {name}."},
        }.items()
    ]
    found = deduped(*planted, *noisy(300), asked=tuple(asked))
    leaked = found.dropped.filter(pl.col("rule") != "near_duplicate")
    assert len(planted) > 1500
    assert leaked.filter(pl.col("id").str.starts_with("lima:")).height >= len(planted) - 4
    assert leaked.filter(~pl.col("id").str.starts_with("lima:")).is_empty()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(dedup, "CACHE", tmp_path / ".cache")
    return tmp_path


def test_the_command_reads_and_writes_its_tables(folder: Path) -> None:
    rows = examples(*noisy(60))
    set_up(folder, rows, rows)
    dedup.main()
    expected = run(rows, rows, prompts(TEST_PROMPT))
    for name, schema in (("kept", EXAMPLE), ("unfiltered", EXAMPLE), ("dropped", DEDUP_DROPPED)):
        assert read_table(Path(f"data/dedup/{name}.parquet"), schema).equals(getattr(expected, name))
    assert json.loads(Path("metrics/dedup.json").read_text()) == expected.metrics


def test_one_source_more_sketches_only_that_source(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = examples(*noisy(90))
    set_up(folder, rows.filter(pl.col("source") != "b"))
    dedup.main()
    set_up(folder, rows)
    dedup.main()
    dedup.main()
    assert [line.split(";")[0] for line in capsys.readouterr().out.splitlines()] == [
        "sketched 60 of 60 rows", "sketched 30 of 90 rows", "sketched 0 of 90 rows"
    ]  # fmt: skip
    warm = outs(folder)
    shutil.rmtree(folder / ".cache")
    dedup.main()
    assert outs(folder) == warm


def test_rows_of_the_unfiltered_sample_alone_are_not_sketched() -> None:
    n_signed = 0

    def signatures(shingles: U64, offsets: I64, numbers: tuple[U32, U32]) -> U32:
        nonlocal n_signed
        n_signed += len(offsets) - 1
        return PLAIN.signatures(shingles, offsets, numbers)

    rows = [*noisy(60), row("d:1", TEST_PROMPT)]
    means = Means(PLAIN._replace(signatures=signatures), blank_findings(0, params().n_permutations), io.BytesIO())
    found = dedup.run(examples(*rows[:20]).lazy(), examples(*rows[10:]).lazy(), prompts(TEST_PROMPT), params(), means)
    assert n_signed == found.n_sketched == 20
    assert "d:1" in found.dropped["id"]
    assert found.unfiltered.select(pl.len()).collect().item() == found.metrics["unfiltered"]["n_kept"]


def test_a_changed_row_is_sketched_again_and_no_other(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = noisy(90)
    set_up(folder, examples(*rows))
    dedup.main()
    rows[7]["messages"] = turns("Question?", LONG)
    set_up(folder, examples(*rows))
    dedup.main()
    assert "sketched 1 of 90 rows" in capsys.readouterr().out


def test_damaged_findings_are_made_anew(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    set_up(folder, examples(*noisy(90)))
    dedup.main()
    good = outs(folder)
    for path in (folder / ".cache/dedup").iterdir():
        path.write_bytes(path.read_bytes()[:-40] + b"poison" + path.read_bytes()[-34:])
    dedup.main()
    assert "sketched 90 of 90 rows" in capsys.readouterr().out.splitlines()[-1]
    assert outs(folder) == good


def test_nothing_but_findings_is_left_in_the_cache(folder: Path) -> None:
    set_up(folder, examples(*noisy(90)))
    dedup.main()
    assert {path.suffix for path in (folder / ".cache").rglob("*") if path.is_file()} == {".findings"}


def test_a_table_that_is_damaged_inside_is_blamed(folder: Path) -> None:
    set_up(folder, examples(*noisy(90)))
    path = folder / "data/quality/kept.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[:100] + bytes(len(whole) // 2) + whole[100 + len(whole) // 2 :])
    with pytest.raises(InputError, match=r"data/quality/.*kept.*parquet: not readable parquet .*; `dvc repro` makes"):
        dedup.main()


@pytest.mark.slow
def test_the_bytes_do_not_depend_on_threads_kernels_or_batches(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = examples(*noisy(3000)).sort("id")
    set_up(folder, rows, rows.head(500))
    found = []
    for n_threads, batch_rows, many_rows in ((2, 1000, 10**9), (1, 170, 0), (3, 97, 0)):
        monkeypatch.setattr("stages.runtime.parallel.n_cores", lambda n=n_threads: n)
        monkeypatch.setattr(dedup, "_BATCH_ROWS", batch_rows)
        monkeypatch.setattr(dedup, "_MANY_ROWS", many_rows)
        shutil.rmtree(folder / ".cache", ignore_errors=True)
        dedup.main()
        found.append(outs(folder))
    environment = {**os.environ, "POLARS_MAX_THREADS": "1", "PYTHONPATH": str(ROOT), "DVC_ROOT": str(folder)}
    shutil.rmtree(folder / ".cache")
    subprocess.run([sys.executable, "-m", "stages.dedup"], env=environment, check=True)
    assert [outs(folder)] * 3 == found
