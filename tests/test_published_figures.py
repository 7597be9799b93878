"""Published figures of real annotations, reproduced through the project's own functions. Skipped without the data."""

import csv
import gzip
import json
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from stages.core.agreement import cohen_kappa, tie_discounted
from stages.core.intervals import Intervals, standard_error
from stages.core.preferences import preference_values, resolve
from stages.core.score_tables import agreement_table, pairwise_table
from stages.schema import VERDICT

DATA = Path(__file__).parents[1] / "../shared/data/judging"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data")

INTERVALS = Intervals(seed=0, n_bootstrap=2000, confidence=0.95)


def verdicts(rows: list[tuple[str, str, str | None, str | None]]) -> pl.DataFrame:
    """Rows of (item, annotator, order, preference) as schema.VERDICT; a null preference did not parse."""
    filled = [
        (item, 0, "first", "second", annotator, order, preference, None if preference else "off_menu", *[None] * 7)
        for item, annotator, order, preference in rows
    ]
    return pl.DataFrame(filled, schema=VERDICT, orient="row")


def load(path: str) -> Any:
    return json.loads((DATA / path).read_text())


# --- PandaLM: three people, and two models ------------------------------------------------------------------------

PANDALM_SAID = {0: "tie", 1: "a", 2: "b", "1": "a", "2": "b", "Tie": "tie", "garbage": None}


@pytest.fixture(scope="module")
def pandalm() -> pl.DataFrame:
    """Pairs of people 1 to 3, their majority and the two models."""
    rows = []
    for item in load("pandalm/testset-v1.json"):
        said = [item[f"annotator{number}"] for number in (1, 2, 3)]
        (most, _), *_ = Counter(said).most_common()
        named = {"1": said[0], "2": said[1], "3": said[2], "majority": most}
        rows += [(str(item["idx"]), name, None, PANDALM_SAID[value]) for name, value in named.items()]
    for model, key, path in (
        ("gpt", "gpt_result", "gpt-3.5-turbo-testset-v1.json"),
        ("pandalm", "pandalm_result", "pandalm-7b-testset-v1.json"),
    ):
        rows += [(str(item["idx"]), model, None, PANDALM_SAID[item[key]]) for item in load(f"pandalm/{path}")]
    return resolve(verdicts(rows))


def side_by_side(pairs: pl.DataFrame, a: str, b: str) -> tuple[pl.Series, pl.Series]:
    values = preference_values(pairs)
    both = values.filter(annotator=a).join(values.filter(annotator=b), on="prompt_id", suffix="_b")
    return both["value"], both["value_b"]


def test_pandalm_people_agree_as_published(pandalm: pl.DataFrame) -> None:
    assert Counter(pandalm.filter(annotator="majority")["outcome"]) == {"tie": 105, "win": 422, "lose": 472}
    published = {("1", "2"): (0.8520, 0.9304), ("1", "3"): (0.8789, 0.9449), ("2", "3"): (0.8617, 0.9354)}
    table = agreement_table(pandalm.filter(pl.col("annotator").is_in(["1", "2", "3"])), INTERVALS)
    for a, b in combinations("123", 2):
        x, y = side_by_side(pandalm, a, b)
        found = (cohen_kappa(x, y, weights="nominal"), tie_discounted(x, y).mean())
        assert found == pytest.approx(published[a, b], abs=5e-5)
        row = table.row(by_predicate=(pl.col("annotator_a") == a) & (pl.col("annotator_b") == b), named=True)
        assert row["agreement"] == pytest.approx(published[a, b][1], abs=5e-5)
        assert row["n"] == 999
        assert row["low"] < row["agreement"] < row["high"]


def test_pandalm_replies_that_did_not_parse_are_no_ties(pandalm: pl.DataFrame) -> None:
    both = pandalm.filter(annotator="gpt").join(pandalm.filter(annotator="majority"), on="prompt_id", suffix="_b")
    parsed = both.filter(pl.col("outcome") != "unscored")
    assert (both.height - parsed.height, parsed.height) == (25, 974)
    assert (parsed["outcome"] == parsed["outcome_b"]).mean() == pytest.approx(0.7156, abs=5e-5)
    as_ties = both["outcome"].replace("unscored", "tie") == both["outcome_b"]
    assert as_ties.mean() == pytest.approx(0.7107, abs=5e-5)  # the published figure


# --- LLMBar: both orders, and a gold label ------------------------------------------------------------------------

LLMBAR_SETS = ("LLMBar_Natural", "LLMBar_Adversarial_Neighbor")
LLMBAR = [
    (folder, f"{model}.{prompt}")
    for folder in LLMBAR_SETS
    for model in ("GPT-4", "ChatGPT")
    for prompt in ("CoT", "Rating", "Vanilla_NoRules")
]


def llmbar(folder: str, judge: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Verdicts of the judge in both orders and of the gold label. `winner` is about contestants already."""
    rows, gold = [], []
    for number, item in enumerate(load(f"llmbar/{folder}/{judge}.result.json")):
        (result,) = item["results"]
        gold.append((str(number), "gold", None, "ab"[item["label"] - 1]))
        for order, key in (("ab", "swap = False"), ("ba", "swap = True")):
            winner = result[key]["winner"]
            rows.append((str(number), "judge", order, "ab"[int(winner) - 1] if winner else None))
    return verdicts(rows), verdicts(gold)


@pytest.mark.parametrize(("folder", "judge"), LLMBAR)
def test_llmbar_statistics_are_the_published(folder: str, judge: str) -> None:
    given, gold = llmbar(folder, judge)
    published = load(f"llmbar/{folder}/{judge}.statistics.json")
    n = gold.height
    right = given.join(gold, on="prompt_id", suffix="_gold").with_columns(
        hit=pl.col("preference").eq_missing(pl.col("preference_gold"))
    )
    both = resolve(pl.concat([given, gold])).pivot(on="annotator", index="prompt_id", values="outcome")
    counts = {
        "correct_False": right.filter(order="ab")["hit"].sum(),
        "correct_True": right.filter(order="ba")["hit"].sum(),
        "correct_both": (both["judge"] == both["gold"]).sum(),
        "equal": both["judge"].is_in(["win", "lose"]).sum(),
    }
    assert {key: f"{count} / {n}" for key, count in counts.items()} == {
        key: published[key].split(" = ")[0] for key in counts
    }
    orders = given.drop_nulls("preference").pivot(on="order", index="prompt_id", values="preference").drop_nulls()
    if orders.height == n:
        x, y = ((orders[order] == "a").cast(pl.Float64) for order in ("ab", "ba"))
        assert cohen_kappa(x, y, weights="nominal") == pytest.approx(published["kappa_agreement"])


@pytest.mark.parametrize(
    ("folder", "judge", "right"),
    [
        ("LLMBar_Natural", "GPT-4.Vanilla_NoRules", 93.5),
        ("LLMBar_Adversarial_Neighbor", "GPT-4.Vanilla_NoRules", 86),
        ("LLMBar_Natural", "GPT-4.CoT", 94.5),
    ],
)
def test_llmbar_accuracy_over_both_orders_gives_half_for_an_inconsistent_pair(
    folder: str, judge: str, right: float
) -> None:
    given, gold = llmbar(folder, judge)
    (row,) = agreement_table(resolve(pl.concat([given, gold])), INTERVALS).iter_rows(named=True)
    assert row["agreement"] * row["n"] == pytest.approx(right)
    assert (row["n"], row["tie_rate_a"], row["tie_rate_b"]) == (gold.height, 0, 0)


def test_an_equal_pair_of_llmbar_scores_is_a_tie_and_not_an_inconsistency() -> None:
    items = load("llmbar/LLMBar_Natural/ChatGPT.Rating.result.json")
    stored = resolve(llmbar("LLMBar_Natural", "ChatGPT.Rating")[0])
    rows = []
    for number, item in enumerate(items):
        first, second = (float(item["results"][0][f"score_{side}"][0]) for side in (1, 2))
        said = "tie" if first == second else "a" if first > second else "b"
        rows += [(str(number), "judge", order, said) for order in ("ab", "ba")]
    scored = resolve(verdicts(rows))
    assert Counter(stored["outcome"]) == {"inconsistent": 47, "lose": 29, "win": 24}
    assert Counter(scored["outcome"]) == {"tie": 47, "lose": 29, "win": 24}


# --- AlpacaEval: win rates with standard errors -------------------------------------------------------------------


@pytest.fixture(scope="module")
def alpaca_eval() -> pl.DataFrame:
    """Single-order verdicts of alpaca_eval_gpt4, the judged system as `a`: preference 2; 0 and 1.5 are ties."""
    said = {"1": "b", "2": "a", "0": "tie", "1.5": "tie", "": None}
    with gzip.open(DATA / "alpaca_eval/verdicts.csv.gz", "rt") as file:
        rows = [row for row in csv.DictReader(file) if row["annotator"] == "alpaca_eval_gpt4"]
    return verdicts([(row["instruction_sha1"], row["model"], None, said[str(row["preference"])]) for row in rows])


@pytest.mark.parametrize(
    ("system", "win_rate", "error", "n"),
    [
        ("gpt4", 95.2795, 0.7163, 805),
        ("claude", 91.5528, 0.9808, 805),
        ("alpaca-7b", 26.4596, 1.5357, 805),
        ("text_davinci_001", 15.1741, 1.2351, 804),
    ],
)
def test_alpaca_eval_win_rates_are_the_published(
    alpaca_eval: pl.DataFrame, system: str, win_rate: float, error: float, n: int
) -> None:
    values = preference_values(resolve(alpaca_eval.filter(annotator=system)))["value"].to_numpy()
    assert (100 * values.mean(), 100 * standard_error(values), values.size) == (
        pytest.approx(win_rate, abs=5e-5),
        pytest.approx(error, abs=5e-5),
        n,
    )
    _, mean, low, high = INTERVALS.estimate(values, range(n), scale=(0, 1))
    assert mean is not None
    assert low is not None
    assert high is not None
    assert high - low == pytest.approx(2 * 1.96 * error / 100, rel=0.06)  # the bootstrap agrees with the formula


def test_alpaca_evals_leaderboard_follows_from_its_verdicts(alpaca_eval: pl.DataFrame) -> None:
    with (DATA / "alpaca_eval/leaderboard.alpaca_eval_gpt4.csv").open() as file:
        published = {row[""]: row for row in csv.DictReader(file)}
    pairs = preference_values(resolve(alpaca_eval))
    found = {
        name: (100 * part["value"].mean(), 100 * standard_error(part["value"].to_numpy()), part.height)
        for (name,), part in pairs.partition_by("annotator", as_dict=True).items()
    }
    shared = found.keys() & published.keys()
    wrong = [
        name
        for name in shared
        if found[name]
        != pytest.approx(
            tuple(float(published[name][key]) for key in ("win_rate", "standard_error", "n_total")), abs=1e-6
        )
    ]
    assert (len(shared), wrong) == (52, [])


def test_a_paired_difference_is_tighter_than_an_unpaired_one(alpaca_eval: pl.DataFrame) -> None:
    pairs = preference_values(resolve(alpaca_eval))
    gpt4, claude = (pairs.filter(annotator=name).select("prompt_id", "value") for name in ("gpt4", "claude"))
    both = gpt4.join(claude, on="prompt_id", suffix="_b")
    apart = (both["value"] - both["value_b"]).to_numpy()
    assert 100 * apart.mean() == pytest.approx(3.727, abs=5e-4)
    assert 100 * standard_error(apart) == pytest.approx(1.076, abs=5e-4)
    unpaired = np.hypot(*(standard_error(both[column].to_numpy()) for column in ("value", "value_b")))
    assert 100 * unpaired == pytest.approx(1.214, abs=5e-4)
    low, high = INTERVALS.estimate(apart, both["prompt_id"], scale=(-1, 1))[2:]
    assert low is not None
    assert high is not None
    assert 100 * (high - low) == pytest.approx(2 * 1.96 * 1.076, rel=0.05)


def test_a_pairwise_table_of_real_verdicts_adds_up(alpaca_eval: pl.DataFrame) -> None:
    table = pairwise_table(resolve(alpaca_eval.filter(annotator="claude")), INTERVALS)
    assert table["rate"].sum() == pytest.approx(1)
    assert (table["low"] <= table["rate"]).all()
    assert (table["rate"] <= table["high"]).all()
