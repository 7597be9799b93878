"""Published figures of real annotations, by the project's own readers and functions. Skipped without the data."""

import csv
import json
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

import krippendorff
import numpy as np
import polars as pl
import pytest

from stages import agreement
from stages.core import length_control
from stages.core.agreement import LEVELS, alpha, cohen_kappa, coincidences, fleiss_kappa, tables, tie_discounted
from stages.core.agreement_tables import agreement_groups_table, agreement_table
from stages.core.intervals import Intervals, standard_error
from stages.core.length_control import length_controlled
from stages.core.position import position_bias
from stages.core.preferences import preference_values, resolve
from stages.core.score_tables import pairwise_table
from stages.core.votes import Votes, about, combine, copies, majority
from stages.runtime.vote_files import read_vote_file

DATA = Path(__file__).parents[1] / "../shared/data/judging"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data")

INTERVALS = Intervals(seed=0, n_bootstrap=2000, confidence=0.95)


def load(path: str) -> Any:
    return json.loads((DATA / path).read_text())


def votes(*paths: str, **columns: str) -> Votes:
    return combine(read_vote_file(DATA / path, columns=columns, meanings={}) for path in paths)


# --- PandaLM: three people, and two models ------------------------------------------------------------------------

PEOPLE = ("annotator1", "annotator2", "annotator3")


@pytest.fixture(scope="module")
def pandalm() -> pl.DataFrame:
    """Pairs of three people, their majority and the two models."""
    files = ("testset-v1", "gpt-3.5-turbo-testset-v1", "pandalm-7b-testset-v1")
    said = votes(*(f"pandalm/{file}.json" for file in files)).frame
    return resolve(pl.concat([said, majority(said, PEOPLE)]))


def side_by_side(pairs: pl.DataFrame, a: str, b: str) -> tuple[pl.Series, pl.Series]:
    values = preference_values(pairs)
    both = values.filter(annotator=a).join(values.filter(annotator=b), on="prompt_id", suffix="_b")
    return both["value"], both["value_b"]


def test_pandalm_people_agree_as_published(pandalm: pl.DataFrame) -> None:
    assert Counter(pandalm.filter(annotator="majority")["outcome"]) == {"tie": 105, "win": 422, "lose": 472}
    published = {"12": (0.8520, 0.9304), "13": (0.8789, 0.9449), "23": (0.8617, 0.9354)}
    table = agreement_table(pandalm.filter(pl.col("annotator").is_in(PEOPLE)), INTERVALS)
    for (a, b), (kappa, accuracy) in zip(combinations(PEOPLE, 2), published.values(), strict=True):
        x, y = side_by_side(pandalm, a, b)
        assert cohen_kappa(x, y, weights="nominal") == pytest.approx(kappa, abs=5e-5)
        assert tie_discounted(x, y).mean() == pytest.approx(accuracy, abs=5e-5)
        row = table.row(by_predicate=(pl.col("annotator_a") == a) & (pl.col("annotator_b") == b), named=True)
        assert row["agreement"] == pytest.approx(accuracy, abs=5e-5)
        assert row["n"] == row["n_prompts"] == 999
        for name in ("", "kappa_", "alpha_"):
            assert row[f"{name}low"] < row[name.removesuffix("_") or "agreement"] < row[f"{name}high"]


def test_pandalm_people_as_a_group_have_the_published_kappa_and_alpha(pandalm: pl.DataFrame) -> None:
    people = pandalm.filter(pl.col("annotator").is_in(PEOPLE))
    row = agreement_groups_table(people, dict.fromkeys(PEOPLE, "people"), INTERVALS).row(0, named=True)
    assert (row["n"], row["n_prompts"]) == (3 * 999, 999)
    assert row["alpha"] == pytest.approx(0.86422, abs=5e-6)
    assert row["agreement"] == pytest.approx((0.9304 + 0.9449 + 0.9354) / 3, abs=5e-5)
    values = [preference_values(people).filter(annotator=name)["value"].to_numpy() for name in PEOPLE]
    counts = sum(coincidences(tables(x, y), n_annotators=3).sum(axis=0) for x, y in combinations(values, 2))
    assert fleiss_kappa(counts) == pytest.approx(0.86418, abs=5e-6)
    assert alpha(counts) == pytest.approx(
        krippendorff.alpha(np.array(values), level_of_measurement="nominal", value_domain=LEVELS)
    )


def test_pandalm_replies_that_did_not_parse_are_no_ties(pandalm: pl.DataFrame) -> None:
    both = pandalm.filter(annotator="gpt").join(pandalm.filter(annotator="majority"), on="prompt_id", suffix="_b")
    parsed = both.filter(pl.col("outcome") != "unscored")
    assert (both.height - parsed.height, parsed.height) == (25, 974)
    assert (parsed["outcome"] == parsed["outcome_b"]).mean() == pytest.approx(0.7156, abs=5e-5)
    as_ties = both["outcome"].replace("unscored", "tie") == both["outcome_b"]
    assert as_ties.mean() == pytest.approx(0.7107, abs=5e-5)  # the published figure
    table = agreement_table(pandalm.filter(pl.col("annotator").is_in(["gpt", "majority"])), INTERVALS)
    assert (table["n"].item(), round(table["exact"].item(), 4)) == (974, 0.7156)


def test_the_command_tells_pandalms_figures(capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(DATA / f"pandalm/{name}-testset-v1.json") for name in ("gpt-3.5-turbo", "pandalm-7b")]
    agreement.main(agreement.parser().parse_args([*files, str(DATA / "pandalm/testset-v1.json"), "--majority"]))
    told = {tuple(words[:2]): words for line in capsys.readouterr().out.splitlines() if len(words := line.split()) > 5}
    assert told["annotator", "annotator"][2:4] == ["2,997", "0.9369"]
    assert told["gpt", "majority"][2] == "974"
    assert "0.7156" in told["gpt", "majority"]
    assert told["gpt", "1"][2:4] == ["974", "25"]


# --- LLMBar: both orders, and a gold label ------------------------------------------------------------------------

LLMBAR_SETS = ("LLMBar_Natural", "LLMBar_Adversarial_Neighbor")
LLMBAR = [
    (folder, f"{model}.{prompt}")
    for folder in LLMBAR_SETS
    for model in ("GPT-4", "ChatGPT")
    for prompt in ("CoT", "Rating", "Vanilla_NoRules")
]
STORED = {"preference": "results.swap = False.winner,results.swap = True.winner"}  # and not by the scores


def llmbar(folder: str, judge: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Stored verdicts of the judge in both orders, and of the gold label."""
    path = f"llmbar/{folder}/{judge}.result.json"
    return votes(path, **STORED).frame, votes(path, preference="label").frame.with_columns(annotator=pl.lit("gold"))


@pytest.mark.parametrize(("folder", "judge"), LLMBAR)
def test_llmbar_statistics_are_the_published(folder: str, judge: str) -> None:
    given, gold = llmbar(folder, judge)
    published = load(f"llmbar/{folder}/{judge}.statistics.json")
    n = gold.height
    right = given.join(gold, on="prompt_id", suffix="_gold").with_columns(
        hit=pl.col("preference").eq_missing(pl.col("preference_gold"))
    )
    both = resolve(pl.concat([given, gold])).pivot(on="annotator", index="prompt_id", values="outcome")
    said = both[f"{judge}.result"]
    counts = {
        "correct_False": right.filter(order="ab")["hit"].sum(),
        "correct_True": right.filter(order="ba")["hit"].sum(),
        "correct_both": (said == both["gold"]).sum(),
        "equal": said.is_in(["win", "lose"]).sum(),
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
    path = "llmbar/LLMBar_Natural/ChatGPT.Rating.result.json"
    stored, read = votes(path, **STORED), votes(path)
    assert Counter(resolve(stored.frame)["outcome"]) == {"inconsistent": 47, "lose": 29, "win": 24}
    judged = read.frame.filter(pl.col("annotator") != "label")
    assert Counter(resolve(judged)["outcome"]) == {"tie": 47, "lose": 29, "win": 24}
    assert "94 votes on equal scores are ties, whatever winner is stored" in read.notes[1]


# --- AlpacaEval: win rates with standard errors -------------------------------------------------------------------


BOARDS = (
    "alpaca_eval_gpt4",
    "alpaca_eval_gpt4_turbo_fn",
    "alpaca_eval_cot_gpt4_turbo_fn",
    "weighted_alpaca_eval_gpt4_turbo",
)


@pytest.fixture(scope="module")
def alpaca_eval() -> Votes:
    """133 files of verdicts, each about a system and its baseline."""
    return votes("alpaca_eval/verdicts.csv.gz")


def values_about(alpaca_eval: Votes, judge: str, system: str) -> pl.DataFrame:
    """One judge's verdicts on a system: prompt_id and value, how far it is preferred; none that failed."""
    said = about(alpaca_eval.frame.filter(annotator=judge), system)
    return said.drop_nulls("value").select("prompt_id", "value")


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
    alpaca_eval: Votes, system: str, win_rate: float, error: float, n: int
) -> None:
    values = values_about(alpaca_eval, "alpaca_eval_gpt4", system)["value"].to_numpy()
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


@pytest.mark.parametrize("system", ["gpt4", "claude", "alpaca-7b", "text_davinci_001"])
def test_alpaca_evals_own_files_say_the_same_as_its_table(alpaca_eval: Votes, system: str) -> None:
    given = votes(f"alpaca_eval/{system}.alpaca_eval_gpt4.annotations.json.gz").frame
    values = about(given, system)["value"].drop_nulls().sort()
    assert values.equals(values_about(alpaca_eval, "alpaca_eval_gpt4", system)["value"].sort())


def leaderboard(judge: str) -> dict[str, tuple[float, ...]]:
    with (DATA / f"alpaca_eval/leaderboard.{judge}.csv").open() as file:
        keys = ("win_rate", "standard_error", "n_total")
        return {row[""]: tuple(float(row[key]) for key in keys) for row in csv.DictReader(file)}


def test_122_of_alpaca_evals_123_leaderboard_rows_follow_from_its_verdicts(alpaca_eval: Votes) -> None:
    right, wrong = [], []
    for judge in BOARDS:
        published = leaderboard(judge)
        said = alpaca_eval.frame.filter(annotator=judge)
        for system in sorted((set(said["a"]) | set(said["b"])) & set(published)):
            values = values_about(alpaca_eval, judge, system)["value"].to_numpy()
            found = (100 * values.mean(), 100 * standard_error(values), values.size)
            (right if found == pytest.approx(published[system], abs=1e-6) else wrong).append((judge, system))
    assert (len(right), wrong) == (122, [("alpaca_eval_gpt4_turbo_fn", "Mistral-7B-Instruct-v0.2")])


def test_both_faults_of_alpaca_evals_files_are_found(alpaca_eval: Votes) -> None:
    wrong_judge, wrong_system = copies(alpaca_eval.frame)
    assert wrong_judge.startswith(
        "the same 805 verdicts, one for one, are said to be alpaca_eval_cot_gpt4_turbo_fn's on Mistral-7B-Instruct-v0.2"
        " and baseline and alpaca_eval_gpt4_turbo_fn's on Mistral-7B-Instruct-v0.2"
    )
    assert "baseline and falcon-40b-instruct and alpaca_eval_gpt4's on baseline and falcon-7b-instruct" in wrong_system
    assert alpaca_eval.notes[-2:] == (wrong_judge, wrong_system)


def test_a_paired_difference_is_tighter_than_an_unpaired_one(alpaca_eval: Votes) -> None:
    gpt4, claude = (values_about(alpaca_eval, "alpaca_eval_gpt4", name) for name in ("gpt4", "claude"))
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


def test_a_pairwise_table_of_real_verdicts_adds_up(alpaca_eval: Votes) -> None:
    said = about(alpaca_eval.frame.filter(annotator="alpaca_eval_gpt4"), "claude")
    table = pairwise_table(resolve(said), INTERVALS)
    assert table["rate"].sum() == pytest.approx(1)
    assert (table["low"] <= table["rate"]).all()
    assert (table["rate"] <= table["high"]).all()


@pytest.fixture(scope="module")
def at_equal_lengths(alpaca_eval: Votes) -> list[tuple[float, float, pl.DataFrame]]:
    """Of 56 systems: AlpacaEval's rate at equal lengths, the raw rate, and the verdicts (value, apart, prompt_id)."""
    judge = "weighted_alpaca_eval_gpt4_turbo"
    with (DATA / f"alpaca_eval/leaderboard.{judge}.csv").open() as file:
        published = {row[""]: float(row["length_controlled_winrate"] or "nan") for row in csv.DictReader(file)}
    said = alpaca_eval.frame.filter(annotator=judge).drop_nulls("value")
    found = []
    for system in sorted((set(said["a"]) | set(said["b"])) & set(published)):
        one = about(said, system).with_columns(apart=pl.col("chars_a") - pl.col("chars_b"))
        if not np.isnan(published[system]) and one["apart"].n_unique() > 1:
            found.append((published[system], 100 * float(one["value"].to_numpy().mean()), one))
    assert len(found) == 56
    return found


def rates_at_equal_lengths(systems: list[tuple[float, float, pl.DataFrame]]) -> np.ndarray:
    controlled = [
        length_controlled(one["value"], one["apart"], one["prompt_id"], confidence=0.95) for *_, one in systems
    ]
    return np.array([100 * one.rate for one in controlled if one])


def test_rates_at_equal_lengths_are_near_alpaca_evals(at_equal_lengths: list) -> None:
    """Its own method also knows each prompt's difficulty; that is what is left between the two."""
    theirs, raw = (np.array([system[place] for system in at_equal_lengths]) for place in (0, 1))
    ours = rates_at_equal_lengths(at_equal_lengths)
    assert np.abs(ours - theirs).mean() == pytest.approx(1.10, abs=0.01)  # as docstring and report say
    assert np.abs(raw - theirs).mean() == pytest.approx(4.9, abs=0.05)
    assert np.abs(ours - theirs).max() < 4.6
    assert np.corrcoef(ours, theirs)[0, 1] > 0.995 > 0.99 > np.corrcoef(raw, theirs)[0, 1]


def test_the_ridge_that_half_of_the_systems_choose_serves_the_other_half(
    at_equal_lengths: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = np.array([system[0] for system in at_equal_lengths])
    off = []
    for ridge in (0.0, 1 / 120, 1 / 80, 1 / 60, 1 / 40, 1 / 10):
        monkeypatch.setattr(length_control, "_RIDGE", np.array([0.0, ridge]))
        off.append(np.abs(rates_at_equal_lengths(at_equal_lengths) - theirs))
    table = np.array(off)  # (ridges, systems)
    rng = np.random.default_rng(0)
    held_out = []
    for _ in range(100):
        order = rng.permutation(56)
        chosen = table[:, order[:28]].mean(axis=1).argmin()
        held_out.append(table[chosen, order[28:]].mean())
    assert np.mean(held_out) < 1.2 < 1.4 < table[0].mean()


def test_a_judges_lean_to_the_first_answer_is_found() -> None:
    leans = {}
    for judge in ("ChatGPT.Vanilla_NoRules", "GPT-4.Vanilla_NoRules"):
        given, _ = llmbar("LLMBar_Natural", judge)
        lean = position_bias(given, INTERVALS)
        assert lean is not None
        leans[judge] = lean
    assert leans["ChatGPT.Vanilla_NoRules"].p_value < 1e-4
    assert leans["GPT-4.Vanilla_NoRules"].p_value > 0.5
