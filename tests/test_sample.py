from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.stats import chisquare

from stages import sample
from stages.common.errors import InputError, ParamsError
from stages.common.files import read_table, write_table
from stages.core.draw_measures import Measures
from stages.sample import ArmParams, Params, run, to_jsonl
from stages.schema import EXAMPLE
from tests.curation import ROOT, examples, row, section, turns

STEM, NI = "stack_exchange_stem", "natural_instructions"


def strategy(temperature: float | None = 1.0, within: str = "random", *, each_first: bool = False) -> dict[str, Any]:
    return {"temperature": temperature, "within": within, "each_first": each_first}


def params(seed: int = 0, n_heldout: int = 0, *, redistribute: bool = False, **groups: dict[str, Any]) -> Params:
    plain = {STEM: strategy(3.0, "score"), "wikihow": strategy(None), NI: strategy(None, each_first=True)}
    return Params.model_validate(
        {
            "seed": seed,
            "n_heldout": n_heldout,
            "redistribute": redistribute,
            "groups": {**plain, **groups},
            "vectors": {"model": "tfidf", "revision": None, "max_tokens": 64},
            "deita": {"by": "score", "max_cosine": 0.9},
            "measures": {"n_rows": 50, "n_random_draws": 2},
        }
    )


def arm(**quotas: int) -> ArmParams:
    return ArmParams(pool="data/dedup/kept.parquet", quotas=quotas)


def by_strategy(name: str, **quotas: int) -> ArmParams:
    return ArmParams.model_validate({"pool": "data/dedup/kept.parquet", "quotas": quotas, "strategy": name})


def rows_of(group: str, **sizes: int) -> list[dict[str, Any]]:
    """Rows of one group, so many of each domain; scores 0, 1, 2, ... in each."""
    return [
        row(f"{group}:{domain}/{i:05d}", f"{domain} {i}?", "Yes.", group=group, domain=domain, score=i)
        for domain, n in sizes.items()
        for i in range(n)
    ]


POOL = examples(
    *rows_of(STEM, physics=40, chemistry=25, beer=3),
    *rows_of("wikihow", food=30, travel=5),
    *rows_of(NI, t1=6, t2=6, t3=6),
)  # fmt: skip


def by(frame: pl.DataFrame, column: str) -> dict[str, int]:
    return dict(frame[column].value_counts().iter_rows())


def test_quotas_are_met_exactly() -> None:
    found = run(POOL, params(), arm(stack_exchange_stem=20, wikihow=7, natural_instructions=3))
    assert by(found.train, "group") == {STEM: 20, "wikihow": 7, NI: 3}
    assert found.train["id"].is_sorted()
    assert found.train["id"].n_unique() == 30


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 68), st.integers(1, 35), st.integers(0, 40), st.integers(0, 9), st.randoms())
def test_a_draw_is_exact_and_does_not_depend_on_the_order_of_rows(
    n_stem: int, n_wikihow: int, n_heldout: int, seed: int, shuffler: random.Random
) -> None:
    order = list(range(len(POOL)))
    shuffler.shuffle(order)
    quotas = arm(stack_exchange_stem=n_stem, wikihow=n_wikihow)
    first = run(POOL, params(seed, n_heldout), quotas)
    second = run(POOL[order], params(seed, n_heldout), quotas)
    assert first.train.equals(second.train)
    assert first.heldout.equals(second.heldout)
    assert first.metrics == second.metrics
    assert by(first.train, "group") == {STEM: n_stem, "wikihow": n_wikihow}
    assert not {*first.train["id"]} & {*first.heldout["id"]}
    assert len(first.heldout) == min(n_heldout, 68 + 35 - n_stem - n_wikihow)


def test_within_a_domain_the_highest_scored_questions_come_first_whatever_their_answers_have() -> None:
    votes = [(5, 90), (9, 12), (None, 99), (9, 11), (5, None), (5, 90), (-3, 80)]  # on the prompt, on the response
    rows = [
        row(f"a:{i}", group=STEM, domain="physics", prompt_score=asked, score=answered)
        for i, (asked, answered) in enumerate(votes)
    ]
    order = [1, 3, 0, 5, 4, 6, 2]
    for n in range(1, len(order) + 1):
        found = run(examples(*rows), params(), arm(stack_exchange_stem=n))
        assert found.train["id"].to_list() == [f"a:{i}" for i in sorted(order[:n])]


def test_at_random_any_row_of_a_domain_may_come() -> None:
    pool = examples(*rows_of("wikihow", food=10))
    seen = [run(pool, params(seed), arm(wikihow=3)).train["score"].to_list() for seed in range(150)]
    counts = np.bincount([score for scores in seen for score in scores], minlength=10)
    assert chisquare(counts).pvalue > 0.01


@pytest.mark.parametrize(("temperature", "expected"), [(1.0, [300, 100]), (None, [200, 200]), (3.0, [236.2, 163.8])])
def test_domains_follow_the_temperature(temperature: float | None, expected: list[float]) -> None:
    pool = examples(*rows_of("wikihow", food=3000, travel=1000))
    found = by(run(pool, params(wikihow=strategy(temperature)), arm(wikihow=400)).train, "domain")
    assert chisquare([found["food"], found["travel"]], expected).pvalue > 0.01


def test_a_domain_that_runs_out_leaves_the_draw() -> None:
    found = run(POOL, params(), arm(wikihow=30))
    assert by(found.train, "domain") == {"travel": 5, "food": 25}


def test_one_of_each_task_comes_first() -> None:
    for seed in range(10):
        assert by(run(POOL, params(seed), arm(natural_instructions=3)).train, "domain") == {"t1": 1, "t2": 1, "t3": 1}
        assert min(by(run(POOL, params(seed), arm(natural_instructions=5)).train, "domain").values()) == 1
        assert max(by(run(POOL, params(seed), arm(natural_instructions=2)).train, "domain").values()) == 1


def test_all_draws_from_the_whole_pool_at_random() -> None:
    found = run(POOL, params(n_heldout=20), ArmParams(pool="p", quotas={"all": 60}))
    assert len(found.train) == 60
    assert len(found.heldout) == 20
    counts = by(found.train, "group")
    assert chisquare([counts[STEM], counts["wikihow"], counts[NI]], np.array([68, 35, 18]) / 121 * 60).pvalue > 0.01
    everything = run(POOL, params(), ArmParams(pool="p", quotas={"all": len(POOL)}))
    assert everything.train.equals(POOL.sort("id"))


def test_another_seed_draws_other_rows() -> None:
    ids = [tuple(run(POOL, params(seed), arm(wikihow=10)).train["id"]) for seed in (0, 1)]
    assert ids[0] != ids[1]


def test_a_group_draws_the_same_rows_whatever_the_others() -> None:
    alone = run(POOL, params(), arm(wikihow=10)).train
    together = run(POOL, params(), arm(stack_exchange_stem=20, wikihow=10)).train
    assert together.filter(pl.col("group") == "wikihow").equals(alone)


def test_groups_of_the_same_sizes_are_drawn_independently() -> None:
    pool = examples(*(cells for group in ("wikihow", NI) for cells in rows_of(group, a=40, b=40, c=40, d=40)))
    draws = params(natural_instructions=strategy(None))
    train = run(pool, draws, arm(wikihow=60, natural_instructions=60)).train
    counts = [by(train.filter(pl.col("group") == group), "domain") for group in ("wikihow", NI)]
    assert counts[0] != counts[1]


def test_held_out_rows_are_spread_like_the_quotas() -> None:
    found = run(POOL, params(n_heldout=9), arm(stack_exchange_stem=20, wikihow=10))
    assert by(found.heldout, "group") == {STEM: 6, "wikihow": 3}
    assert found.metrics["n_heldout"] == 9


def test_a_group_that_is_used_up_leaves_the_held_out_rows_to_others() -> None:
    found = run(POOL, params(n_heldout=9), arm(stack_exchange_stem=20, wikihow=35))
    assert by(found.heldout, "group") == {STEM: 9}


def test_held_out_rows_do_not_change_the_training_set() -> None:
    with_, without = (run(POOL, params(n_heldout=n), arm(wikihow=10)).train for n in (20, 0))
    assert with_.equals(without)


def test_a_pool_too_small_is_one_sentence_with_group_asked_and_there() -> None:
    with pytest.raises(InputError, match=r"^data/dedup/kept.parquet: .*'wikihow'.* asked 36 and there are 35; lower"):
        run(POOL, params(), arm(wikihow=36))
    with pytest.raises(InputError, match=r"'stack_exchange_stem'.* asked 1 and there are 0"):
        run(examples(), params(), arm(stack_exchange_stem=1))


def test_what_a_group_lacks_is_split_over_the_others_where_that_is_allowed() -> None:
    quotas = arm(stack_exchange_stem=20, wikihow=38, natural_instructions=10)  # wikihow has 35
    found = run(POOL, params(redistribute=True), quotas)
    assert by(found.train, "group") == {STEM: 22, "wikihow": 35, NI: 11}  # 3 as 20 to 10
    told = {group: quota["n_redistributed"] for group, quota in found.metrics["quotas"].items()}
    assert told == {STEM: 2, "wikihow": -3, NI: 1}
    assert found.metrics["quotas"]["wikihow"]["n_exhausted_domains"] == 2
    assert len(found.train) == 68


def test_redistribution_does_not_change_a_draw_that_lacks_nothing() -> None:
    quotas = arm(stack_exchange_stem=20, wikihow=30)
    first, second = (run(POOL, params(n_heldout=9, redistribute=allowed), quotas) for allowed in (False, True))
    assert first.train.equals(second.train)
    assert first.heldout.equals(second.heldout)


def test_what_no_group_has_cannot_be_redistributed() -> None:
    with pytest.raises(InputError, match=r"'wikihow'.* asked 100 and there are 35; "):
        run(POOL, params(redistribute=True), arm(stack_exchange_stem=22, wikihow=100))


def test_a_quota_for_a_group_without_a_strategy_is_refused() -> None:
    with pytest.raises(ParamsError, match=r"keys of sample.groups, got 'poems'; .*wikihow"):
        run(POOL, params(), arm(poems=1))


@pytest.mark.parametrize("quotas", [{}, {"a": 0}, {"all": 5, "a": 5}])
def test_quotas_that_say_nothing_are_refused(quotas: dict[str, int]) -> None:
    with pytest.raises(ValidationError, match="1 or more rows, or `all` alone"):
        ArmParams(pool="p", quotas=quotas)


def test_metrics_by_hand() -> None:
    rows = [
        row("x:1", "abcd", "ab", domain="d1", group=STEM),
        row("x:2", "ab", "abcdef", domain="d2", group=STEM),
        row("y:1", domain="d1", group="wikihow", messages=turns("a", "bc", "def", "ghij")),
    ]
    found = run(examples(*rows), params(), arm(stack_exchange_stem=2, wikihow=1)).metrics
    measures, random_draws = found.pop("measures"), found.pop("random_draws")
    stem = {"n": 2, "n_domains": 2, "domain_entropy_bits": 1.0, "mean_prompt_chars": 3.0, "mean_response_chars": 4.0}
    wikihow = {"n": 1, "n_domains": 1, "domain_entropy_bits": 0.0, "mean_prompt_chars": 4.0, "mean_response_chars": 6.0}
    assert found == {
        "n": 3, "n_domains": 2, "domain_entropy_bits": pytest.approx(0.918296, abs=1e-6),
        "mean_prompt_chars": pytest.approx(10 / 3), "mean_response_chars": pytest.approx(14 / 3),
        "groups": {STEM: stem, "wikihow": wikihow}, "sources": {"x": stem, "y": wikihow}, "n_heldout": 0, "n_pool": 3,
        "quotas": {
            STEM: {"n_asked": 2, "n_drawn": 2, "n_exhausted_domains": 2, "n_redistributed": 0},
            "wikihow": {"n_asked": 1, "n_drawn": 1, "n_exhausted_domains": 1, "n_redistributed": 0},
        },
    }  # fmt: skip
    assert measures["coverage"] == pytest.approx(1, abs=0.01)
    assert measures["response_chars"] == {"p05": 2.0, "p25": 2.0, "p50": 6.0, "p75": 6.0, "p95": 6.0}
    assert random_draws["n"] == 2
    assert random_draws["coverage"] == {name: pytest.approx(measures["coverage"]) for name in ("mean", "min", "max")}
    assert (random_draws["pool"], random_draws["quotas"]) == ("data/dedup/kept.parquet", {"all": 3})
    assert random_draws["sources"]["y"]["n"] == {"mean": 1.0, "min": 1, "max": 1}
    assert random_draws["sources"]["x"]["mean_prompt_chars"] == {"mean": 3.0, "min": 3.0, "max": 3.0}


def test_random_draws_are_of_the_whole_pool_and_count_a_source_that_they_miss() -> None:
    rows = [row(f"x:{i}", "ab", group=STEM) for i in range(9)] + [row("y:1", "abcd", group="wikihow")]
    settings_ = params()
    settings_ = settings_.model_copy(update={"measures": Measures(n_rows=50, n_random_draws=40)})
    found = run(examples(*rows), settings_, arm(wikihow=1)).metrics["random_draws"]
    assert found["quotas"] == {"all": 1}
    few, many = found["sources"]["y"], found["sources"]["x"]
    assert (few["n"]["min"], few["n"]["max"]) == (0, 1) == (many["n"]["min"], many["n"]["max"])
    assert few["n"]["mean"] + many["n"]["mean"] == pytest.approx(1)
    assert few["mean_prompt_chars"] == {"mean": 4.0, "min": 4.0, "max": 4.0}


def test_the_jsonl_has_the_release_format() -> None:
    text = to_jsonl(examples(row("x:1", "Où?\n", 'Là "bas"'), row("x:2", messages=turns("a", "b", "c", "d"))))
    assert [json.loads(line) for line in text.splitlines()] == [
        {"conversations": ["Où?\n", 'Là "bas"'], "source": "x"},
        {"conversations": ["a", "b", "c", "d"], "source": "x"},
    ]
    assert "Où" in text


STRATEGIES = ("random", "longest", "k_center", "facility_location", "tags", "deita")


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_meets_the_quotas_whatever_the_order_of_rows(name: str) -> None:
    order = list(range(len(POOL)))
    random.Random(0).shuffle(order)
    quotas = by_strategy(name, stack_exchange_stem=9, wikihow=7)
    first, second = (run(pool, params(n_heldout=6), quotas) for pool in (POOL, POOL[order]))
    assert first.train.equals(second.train)
    assert first.heldout.equals(second.heldout)
    assert first.metrics == second.metrics
    assert by(first.train, "group") == {STEM: 9, "wikihow": 7}
    assert not {*first.train["id"]} & {*first.heldout["id"]}
    assert len(first.heldout) == 6


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_draws_from_the_whole_pool_too(name: str) -> None:
    found, more = (run(POOL, params(n_heldout=n), by_strategy(name, all=20)) for n in (0, 10))
    assert len(found.train) == 20
    assert more.train.equals(found.train)
    assert len(more.heldout) == 10


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_may_use_the_pool_up(name: str) -> None:
    everything = run(POOL, params(n_heldout=3, redistribute=True), by_strategy(name, all=3)).train
    assert len(everything) == 3
    if name != "deita":  # near rows never qualify
        found = run(POOL, params(n_heldout=3), by_strategy(name, all=len(POOL)))
        assert found.train.equals(POOL.sort("id"))
        assert found.heldout.is_empty()


def test_random_within_a_group_is_what_lima_draws_from_all() -> None:
    first, second = (run(POOL, params(n_heldout=5), by_strategy(name, all=30)) for name in ("lima", "random"))
    assert first.train.equals(second.train)
    assert first.heldout.equals(second.heldout)


def test_the_longest_are_those_with_the_longest_responses() -> None:
    rows = [row(f"a:{i}", response="x" * n, group=STEM) for i, n in enumerate([5, 9, 7, 9, 1])]
    assert run(examples(*rows), params(), by_strategy("longest", all=2)).train["id"].to_list() == ["a:1", "a:3"]
    assert run(examples(*rows), params(), by_strategy("longest", all=3)).train["id"].to_list() == ["a:1", "a:2", "a:3"]


def test_tags_come_with_the_domain_and_higher_votes_first() -> None:
    rows = [
        row("a:1", domain="bread", tags=["oven"], score=5),
        row("a:2", domain="bread", tags=["oven"], score=9),
        row("a:3", domain="cake", tags=None, score=1),
        row("a:4", domain="bread", tags=["oven", "salt"], score=0),
        row("a:5", domain="cake", tags=["oven"], score=2),
    ]
    drawn = [set(run(examples(*rows), params(), by_strategy("tags", all=n)).train["id"]) for n in (1, 2, 3)]
    # bread-oven-salt, then cake-oven for its domain; a new round begins with bread-oven of 9 votes
    assert drawn == [{"a:4"}, {"a:4", "a:5"}, {"a:4", "a:5", "a:2"}]


def test_deita_takes_the_best_voted_of_what_is_alike() -> None:
    texts = {"a:1": "the oak burns", "a:2": "the oak burns", "a:3": "elm wood bends well", "a:4": "ash splits"}
    votes = {"a:1": 3, "a:2": 8, "a:3": 1, "a:4": None}
    rows = [row(id_, text, "Yes.", score=votes[id_], group=STEM) for id_, text in texts.items()]
    drawn = [set(run(examples(*rows), params(), by_strategy("deita", all=n)).train["id"]) for n in (1, 2, 3)]
    assert drawn == [{"a:2"}, {"a:2", "a:4"}, {"a:2", "a:4", "a:3"}]  # no votes: the middle
    with pytest.raises(InputError, match=r"asked 4 and 3 qualify; raise `sample.deita.max_cosine`"):
        run(examples(*rows), params(), by_strategy("deita", all=4))


def test_what_deita_passes_over_is_redistributed() -> None:
    alike = [row(f"a:{i}", "the oak burns", group=STEM) for i in range(5)]
    others = [row(f"b:{i}", f"word{i} other{i}", f"third{i} fourth{i}", group="wikihow") for i in range(9)]
    quotas = by_strategy("deita", stack_exchange_stem=3, wikihow=3)
    found = run(examples(*alike, *others), params(redistribute=True), quotas)
    assert by(found.train, "group") == {STEM: 1, "wikihow": 5}


def test_an_unknown_strategy_is_refused() -> None:
    with pytest.raises(ValidationError, match="'lima', 'random', 'longest'"):
        by_strategy("best", all=1)


def test_an_arm_without_a_strategy_is_drawn_by_lima() -> None:
    assert arm(wikihow=1).strategy == "lima"


def write_params(**quotas: dict[str, int]) -> None:
    """The miniature's `sample`, with arms of these quotas, as params.yaml."""
    pools = {"curated": "data/dedup/kept.parquet", "bulk": "data/dedup/unfiltered.parquet"}
    arms = {name: {"sample": {"pool": pools[name], "quotas": quota}, "sft": {}} for name, quota in quotas.items()}
    settings_ = section("sample", Params).model_copy(update={"n_heldout": 50}).model_dump()
    Path("params.yaml").write_text(json.dumps({"sample": settings_, "arms": arms}))


def test_the_command_writes_all_or_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_params(curated={"stack_exchange_stem": 30, "wikihow": 20}, bulk={"all": 1800})
    write_table(Path("data/dedup/kept.parquet"), POOL, EXAMPLE)
    sample.main("curated")
    train = read_table(Path("data/sample/curated.parquet"), EXAMPLE)
    heldout = read_table(Path("data/sample/curated.heldout.parquet"), EXAMPLE)
    assert (len(train), len(heldout)) == (50, 50)
    assert Path("data/sample/curated.jsonl").read_text() == to_jsonl(train)
    assert json.loads(Path("metrics/sample/curated.json").read_text())["groups"]["wikihow"]["n"] == 20
    attribution = Path("data/sample/curated.attribution.md").read_text()
    assert attribution.count("\n- ") == 50
    assert capsys.readouterr().err == ""

    write_table(Path("data/dedup/unfiltered.parquet"), POOL, EXAMPLE)
    with pytest.raises(InputError, match=r"^params.yaml: arms.bulk.sample: .*'all'.* asked 1,800 and there are 121"):
        sample.main("bulk")
    assert list(Path().rglob("*bulk*")) == []
    with pytest.raises(ParamsError, match="arms has only curated, bulk"):
        sample.main("poems")


def test_an_arm_with_a_key_that_no_stage_reads_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_params(curated={"wikihow": 20})
    params = json.loads(Path("params.yaml").read_text())
    params["arms"]["curated"]["smaple"] = {"strategy": "longest"}
    Path("params.yaml").write_text(json.dumps(params))
    with pytest.raises(
        ParamsError, match=r"arms\.curated\.smaple: unknown key, got \{'strat.*\(known here: sample, sft"
    ):
        sample.main("curated")


def test_too_few_held_out_rows_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_params(bulk={"all": 100})
    write_table(Path("data/dedup/unfiltered.parquet"), POOL, EXAMPLE)
    sample.main("bulk")
    assert "WARNING: bulk: 21 held-out rows instead of sample.n_heldout 50" in capsys.readouterr().err


def test_a_group_of_one_of_each_first_may_be_used_up_exactly() -> None:
    found = run(POOL, params(n_heldout=5), arm(natural_instructions=18))
    assert (len(found.train), len(found.heldout)) == (18, 0)


@pytest.mark.slow
def test_one_thread_and_two_draw_the_same_bytes(tmp_path: Path) -> None:
    """As two processes: the number of threads is fixed when the libraries are loaded."""
    rng = np.random.default_rng(0)
    words = [f"w{number}" for number in range(500)]
    rows = [
        row(f"a:{i:04}", " ".join(rng.choice(words[: 100 * (1 + i % 5)], 12)), " ".join(rng.choice(words, 20)))
        for i in range(1500)
    ]
    pool = tmp_path / "data/dedup/kept.parquet"
    write_table(pool, examples(*rows), EXAMPLE)
    settings_ = section("sample", Params).model_dump()
    arms = {
        name: {"sample": {"pool": "data/dedup/kept.parquet", "quotas": {"all": 400}, "strategy": name}, "sft": {}}
        for name in ("k_center", "facility_location", "deita")
    }
    (tmp_path / "params.yaml").write_text(json.dumps({"sample": settings_, "arms": arms}))
    for name in arms:
        found = []
        for threads in ("1", "2"):
            variables = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "POLARS_MAX_THREADS")
            environment = {**os.environ, **dict.fromkeys(variables, threads), "PYTHONPATH": str(ROOT)}
            command = [sys.executable, "-m", "stages.sample", name]
            subprocess.run(command, cwd=tmp_path, env=environment, check=True)
            files = [tmp_path / f"data/sample/{name}{end}" for end in (".parquet", ".heldout.parquet", ".jsonl")]
            found.append([path.read_bytes() for path in (*files, tmp_path / f"metrics/sample/{name}.json")])
        assert found[0] == found[1]
