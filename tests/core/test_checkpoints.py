"""Which epoch the written rule takes."""

import numpy as np
import polars as pl
import pytest

from stages.core.bradley_terry import round_robin
from stages.core.checkpoints import epoch_taken, standing_by_grade, standing_by_pairs, standing_by_perplexity
from stages.core.presentations import epoch_name
from stages.schema import EPOCH_GRADE, PERPLEXITY, VERDICT


def choose_epoch(table: pl.DataFrame) -> int:
    return epoch_taken(standing_by_grade(table, sorted(table["epoch"].unique().to_list())))


def grades(by_epoch: dict[int, list[int | None]], *, n_samples: int = 1) -> pl.DataFrame:
    """Grades by epoch, prompt by prompt; with several samples they follow one another."""
    rows = [
        {**dict.fromkeys(EPOCH_GRADE), "epoch": epoch, "prompt_id": f"p:{i // n_samples}", "sample": i % n_samples,
         "helpfulness": value}
        for epoch, values in by_epoch.items()
        for i, value in enumerate(values)
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=EPOCH_GRADE)


@pytest.mark.parametrize(
    ("by_epoch", "taken"),
    [
        pytest.param({5: [1, 1, 1, 1], 10: [6, 6, 6, 6], 15: [3, 3, 3, 3]}, 10, id="a clear best"),
        pytest.param({5: [3, 3, 3, 3], 10: [3, 3, 3, 3]}, 5, id="equal: the earlier"),
        # behind the best by 0, 0, 0, 1: mean .25, standard error .5/2 = .25
        pytest.param({5: [3, 3, 3, 3], 10: [3, 3, 3, 4]}, 5, id="just one standard error: within noise"),
        # behind by 0, 0, 1, 1: mean .5, standard error .577/2 = .289
        pytest.param({5: [3, 3, 3, 3], 10: [3, 3, 4, 4]}, 10, id="beyond one standard error"),
        # behind the best, 15, by .5 +- .5 (epoch 5: 2, 0, 0, 0) and .25 +- .25 (epoch 10)
        pytest.param({5: [2, 3, 3, 3], 10: [4, 3, 3, 2], 15: [4, 3, 3, 3]}, 5, id="the earliest of those within"),
        pytest.param({5: [1, 1, 1, 1], 10: [3, 3, 3, 3], 15: [3, 3, 3, 4]}, 10, id="not the earliest of all"),
        # unlike the means, the paired differences are free of noise: 1 each
        pytest.param({5: [1, 5, 1, 5], 10: [2, 6, 2, 6]}, 10, id="noise is that of paired differences"),
        pytest.param({5: [1], 10: [6]}, 5, id="one prompt: the noise is unknown"),
        pytest.param({5: [None, None], 10: [None, None]}, 5, id="no grades"),
        pytest.param({5: [6, None, 1, 1], 10: [1, 6, 6, 6]}, 5, id="prompts without every grade are left out"),
        pytest.param({5: [3, 3, 3], 10: [6, 6, 6], 15: [None] * 3}, 10, id="an epoch without grades undoes nothing"),
        pytest.param({5: [None, None, 1], 10: [3, 3, 3], 15: [6, 6, 6]}, 15, id="nor is it taken for being early"),
        pytest.param({7: [2, 2]}, 7, id="one candidate"),
    ],
)
def test_the_earliest_epoch_within_one_standard_error_of_the_best(by_epoch: dict, taken: int) -> None:
    assert choose_epoch(grades(by_epoch)) == taken
    assert choose_epoch(grades(by_epoch).reverse()) == taken


def panel(**by_annotator: dict[int, list[int | None]]) -> pl.DataFrame:
    return pl.concat([grades(given).with_columns(annotator=pl.lit(name)) for name, given in by_annotator.items()])


def test_each_of_a_panel_counts_alike_and_the_prompt_stays_the_unit() -> None:
    table = panel(ann={5: [1, 1, 1], 10: [6, 5, 6]}, bo={5: [4, 4, 5], 10: [2, 3, 2]})
    found = standing_by_grade(table, [5, 10])
    assert found["quality"].to_list() == pytest.approx([8 / 3, 4])
    assert found["n"].to_list() == [3, 3]
    assert epoch_taken(found) == 10


def test_who_has_not_graded_every_epochs_answer_to_a_prompt_is_left_out_there() -> None:
    # else bo, who is strict, would lower the one epoch that he has graded
    table = panel(ann={5: [3, 3, 3], 10: [4, 4, 4]}, bo={5: [None, 2, 2], 10: [1, 2, 2]})
    assert standing_by_grade(table, [5, 10])["quality"].to_list() == pytest.approx(
        [(3 + 2.5 + 2.5) / 3, (4 + 3 + 3) / 3]
    )


def test_an_annotator_who_applies_to_nothing_undoes_nobody() -> None:
    table = panel(ann={5: [6, 6, None], 10: [3, 3, 3]}, reference={5: [None] * 3, 10: [None] * 3})
    assert choose_epoch(table) == 5  # which ann has graded for two of three prompts


def test_the_prompt_is_the_unit_not_the_sample() -> None:
    one = {5: [3, 3, 3, 3], 10: [3, 3, 3, 4]}
    five = {epoch: [value for value in values for _ in range(5)] for epoch, values in one.items()}
    assert choose_epoch(grades(five, n_samples=5)) == choose_epoch(grades(one)) == 5


def verdicts(rows: list[tuple[int, int, int, str, str]]) -> pl.DataFrame:
    """Verdicts by (prompt, epoch a, epoch b, preference when shown ab, when shown ba)."""
    table = [
        {**dict.fromkeys(VERDICT), "prompt_id": f"p:{prompt}", "sample": 0, "a": epoch_name(a), "b": epoch_name(b),
         "annotator": "x", "order": order, "preference": said or None, "unscored_reason": None if said else "empty"}
        for prompt, a, b, *both in rows
        for order, said in zip(("ab", "ba"), both, strict=True)
    ]  # fmt: skip
    return pl.DataFrame(table, schema=VERDICT)


def test_pairs_are_won_in_both_orders_or_half_by_each() -> None:
    rows = [(0, 5, 10, "b", "b"), (1, 5, 10, "b", "b"), (2, 5, 10, "tie", "tie"), (3, 5, 10, "a", "b"),
            (4, 5, 10, "", "a")]  # fmt: skip
    standing = standing_by_pairs(verdicts(rows), [5, 10])
    assert standing["quality"].to_list() == pytest.approx(round_robin(np.array([[0, 1.0], [3.0, 0]])).tolist())
    assert standing["n"].to_list() == [4, 4]


def test_the_error_of_pairs_is_that_of_resampled_prompts() -> None:
    rng = np.random.default_rng(0)
    rows = []
    for prompt in range(60):
        for a, b in ((5, 10), (5, 15), (10, 15)):
            said = str(rng.choice(["a", "b", "tie"], p=[0.2, 0.5, 0.3]))
            rows.append((prompt, a, b, said, said))
    standing = standing_by_pairs(verdicts(rows), [5, 10, 15])
    half = {"a": (1.0, 0.0), "b": (0.0, 1.0), "tie": (0.5, 0.5)}
    wins, place = np.zeros((60, 3, 3)), {5: 0, 10: 1, 15: 2}
    for prompt, a, b, said, _ in rows:
        wins[prompt, place[a], place[b]], wins[prompt, place[b], place[a]] = half[said]
    best = int(standing["quality"].arg_max() or 0)
    resampled = round_robin(np.stack([wins[rng.integers(0, 60, 60)].sum(0) for _ in range(600)]))
    assert (resampled[:, [best]] - resampled).std(axis=0) == pytest.approx(standing["error"].to_list(), rel=0.15)


@pytest.mark.parametrize(
    ("n_won", "taken"),
    [pytest.param(30, 10, id="beyond noise"), pytest.param(16, 5, id="16 of 30 are noise: the earlier")],
)
def test_within_one_standard_error_of_the_strongest_the_earlier_epoch_wins(n_won: int, taken: int) -> None:
    rows = [(prompt, 5, 10, *(("b", "b") if prompt < n_won else ("a", "a"))) for prompt in range(30)]
    assert epoch_taken(standing_by_pairs(verdicts(rows), [5, 10])) == taken


@pytest.mark.parametrize("rows", [[], [(0, 5, 10, "b", "b")]])
def test_fewer_than_two_compared_prompts_take_the_earliest(rows: list) -> None:
    assert epoch_taken(standing_by_pairs(verdicts(rows), [5, 10])) == 5


@pytest.mark.parametrize(("measured", "taken"), [([3.0, 2.0, 2.5], 10), ([2.0, 2.0, 3.0], 5), ([None, 2.0, 1.0], 5)])
def test_perplexity_takes_the_lowest(measured: list[float | None], taken: int) -> None:
    rows = [(epoch, value, 9) for epoch, value in zip((5, 10, 15), measured, strict=True)]
    table = pl.DataFrame(rows, schema=PERPLEXITY, orient="row")
    assert epoch_taken(standing_by_perplexity(table, [5, 10, 15])) == taken
