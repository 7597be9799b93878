import re
from typing import Any

import polars as pl
import pytest

from stages.core import figures
from stages.core.agreement_tables import AGREEMENT, AGREEMENT_GROUPS
from stages.core.score_tables import BRADLEY_TERRY, CHECKPOINTS, DIFFERENCE, GRADES, PAIRWISE, SHARES, WIN_RATE
from tests.core.test_headline import CAST
from tests.run_tables import losses


def test_thinned_losses_are_means_weighted_by_supervised_tokens() -> None:
    frame = losses(200, start=3.0).sample(fraction=1.0, shuffle=True, seed=0)
    found = figures.thin_losses({"ours": frame})
    assert len(found) == 100
    first = losses(200, start=3.0).head(2)
    mean = (
        sum(a * b for a, b in first.select("loss", "n_supervised_tokens").iter_rows())
        / first["n_supervised_tokens"].sum()
    )
    assert found["loss"][0] == pytest.approx(mean)
    assert found["step"].to_list() == list(range(2, 201, 2))


@pytest.mark.parametrize("n", [1, 99, 100, 101, 1000])
def test_no_curve_has_more_points_than_it_can_show(n: int) -> None:
    found = figures.thin_losses({"ours": losses(n, start=3.0)})
    assert min(n, 50) <= len(found) <= figures.N_LOSS_POINTS
    assert found["step"][-1] == n


def test_no_arm_gives_no_curve() -> None:
    loss = figures.thin_losses({})
    assert loss.columns == ["arm", "step", "epoch", "loss"]
    assert figures.loss_chart(loss, CAST) is None


def test_losses_are_measured_from_the_right_of_the_bar() -> None:
    rows = [("base", "gpt", "win", 100, 0.6, 0.5, 0.7), ("base", "gpt", "lose", 100, 0.4, 0.3, 0.5)]
    (block,) = figures.pairwise(pl.DataFrame(rows, schema=PAIRWISE, orient="row"), CAST, counts={})
    bar = block["rows"][0]["bar"]
    assert re.findall(r'class="whisker w-lose" x1="(\d+)%" x2="(\d+)%"', bar)[0] == ("50", "70")
    assert block["rows"][0]["words"][0].replace("\u202f", " ") == "win 60 % [50, 70]"


def test_people_who_judged_are_shown_after_the_annotators_of_the_parameters() -> None:
    rows = [("base", who, "win", 9, 1.0, 0.7, 1.0) for who in ("ada", "length", "gpt")]
    blocks = list(figures.pairwise(pl.DataFrame(rows, schema=PAIRWISE, orient="row"), CAST, counts={}))
    assert [block["annotator"] for block in blocks] == ["gpt", "length", "ada"]


def test_what_is_left_out_of_a_rate_stands_beside_it() -> None:
    rows = [("base", "gpt", "win", 9, 1.0, 0.7, 1.0)]
    counts = {"base": {"gpt": {"n": 9, "n_unscored": 2, "n_not_applicable": 3}}}
    (block,) = figures.pairwise(pl.DataFrame(rows, schema=PAIRWISE, orient="row"), CAST, counts=counts)
    assert (block["rows"][0]["n_unscored"], block["rows"][0]["n_not_applicable"]) == (2, 3)


@pytest.mark.parametrize(("widest", "label"), [(0.02, "+10"), (0.2, "+25"), (0.26, "+50"), (0.9, "+100")])
def test_the_axis_of_differences_is_no_wider_than_needed(widest: float, label: str) -> None:
    rows = [("ours", "theirs", "exact", 9, 0.01, 0.0, widest)]
    assert label in figures.differences(pl.DataFrame(rows, schema=DIFFERENCE, orient="row"), CAST)["axis"]


def test_a_difference_touching_zero_is_not_clear_of_it() -> None:
    rows = [("ours", "theirs", "exact", 9, 0.01, 0.0, 0.02), ("ours", "theirs", "exact", 9, 0.01, 0.001, 0.02)]
    found = figures.differences(pl.DataFrame(rows, schema=DIFFERENCE, orient="row"), CAST)
    assert [row["is_clear"] for row in found["rows"]] == [False, True]


def test_an_epoch_without_a_grade_leaves_the_other_curve() -> None:
    rows = [
        ("ours", 5, 0, None, None, None, None, 6.0, "grade", None, None, None, 0),
        ("ours", 10, 0, None, None, None, None, 7.0, "grade", None, None, None, 1),
    ]
    (found,) = figures.checkpoints(pl.DataFrame(rows, schema=CHECKPOINTS, orient="row"), CAST)
    assert found["quality"] is None
    assert "ours, 10: 7.00" in found["perplexity"]
    assert (found["selected"], found["why"]) == ([10], "the earliest candidate, as nothing told them apart")


def curve(by: str, *quality: float | None, grades: bool = False) -> dict[str, Any]:
    """What `checkpoints` gives for one arm with epochs 1, 2, ... of these qualities, the last one kept."""
    rows = [
        {"arm": "ours", "epoch": epoch, "mean_helpfulness": worth if grades else None, "perplexity": 6.0, "by": by,
         "quality": worth, "selected": int(epoch == len(quality))}
        for epoch, worth in enumerate(quality, 1)
    ]  # fmt: skip
    (found,) = figures.checkpoints(pl.DataFrame(rows, schema=CHECKPOINTS), CAST)
    return found


@pytest.mark.parametrize(
    ("by", "quality", "why"),
    [
        ("grade", (4.0, 5.0), "mean grade on the dev prompts is within one paired standard error"),
        ("pairs", (-0.2, 0.2), "Bradley-Terry strength on the dev prompts is within one standard error"),
        ("perplexity", (-7.0, -6.0), "the one with the lowest held-out perplexity"),
        ("pairs", (None, None), "the earliest candidate, as nothing told them apart"),
        ("grade", (4.0,), "the only candidate"),
        ("grade", (None,), "the only candidate"),
    ],
)
def test_why_an_epoch_was_kept_follows_from_what_it_was_chosen_by(by: str, quality: Any, why: str) -> None:
    assert why in curve(by, *quality)["why"]


def test_strengths_are_drawn_where_nothing_is_graded_and_the_perplexity_once() -> None:
    assert "Bradley-Terry strength" in curve("pairs", -0.2, 0.2)["quality"]
    assert "mean helpfulness" in curve("grade", 4.0, 5.0, grades=True)["quality"]
    assert curve("perplexity", -7.0, -6.0)["quality"] is None


def test_what_300_prompts_show_follows_the_confidence() -> None:
    """(1.960 + 0.842) sqrt(0.25 * 0.8 / 300) = 7.2 points; at 99 % 2.576 stands for 1.960."""
    assert figures.power(confidence=0.95)["points"] == pytest.approx(7.2, abs=0.05)
    assert figures.power(confidence=0.99)["points"] == pytest.approx(8.8, abs=0.05)


def test_grades_without_outcomes_have_no_bar() -> None:
    rows = [("ours", "gpt", 3, 4.0, None, None, None, None, None, 0, None)]
    (found,) = figures.grades(pl.DataFrame(rows, schema=GRADES, orient="row"), pl.DataFrame(schema=SHARES), CAST)
    assert found["bar"] is None
    assert "mean helpfulness 4.00" in found["scale"]


def test_each_responder_keeps_one_colour() -> None:
    assert figures.colours(CAST) == {"ours": 0, "theirs": 1, "base": 2}


def test_win_rates_stand_by_annotator_in_the_order_of_the_parameters() -> None:
    rows = [
        {"opponent": name, "annotator": annotator, "n": 9, "win_rate": 0.5, "low": 0.4, "high": 0.6}
        for annotator in ("ann", *CAST.annotators[::-1])
        for name in CAST.opponents[::-1]
    ]
    found = list(figures.win_rates(pl.DataFrame(rows, schema=WIN_RATE), CAST))
    expected = [(annotator, name) for annotator in (*CAST.annotators, "ann") for name in CAST.opponents]
    assert [(row["annotator"], row["opponent"]) for row in found] == expected
    assert all("[40, 60]" in row["bar"] for row in found)


def test_strengths_share_one_axis_and_need_three_contestants() -> None:
    three = [("gpt", "x", 9, 0.0, 0.0, 0.0), ("gpt", "y", 9, -1.5, -2.2, -0.8), ("gpt", "z", 9, 1.0, 0.5, 1.5)]
    two = [("ann", "x", 9, 0.0, 0.0, 0.0), ("ann", "y", 9, 0.4, 0.1, 0.7)]
    (block,) = figures.strengths(pl.DataFrame([*three, *two], schema=BRADLEY_TERRY, orient="row"), CAST)
    assert [(row["responder"], row["says"], row["interval"]) for row in block["rows"]] == [
        ("x", "0.00", ""), ("y", "−1.50", "[−2.20, −0.80]"), ("z", "+1.00", "[+0.50, +1.50]")
    ]  # fmt: skip
    assert "−3" in block["axis"]
    assert "range" not in block["rows"][0]["bar"]  # the anchor has no interval


def test_kinds_of_annotators_come_before_every_two_of_them() -> None:
    kinds = [{"group_a": "crowd", "group_b": "crowd"}, {"group_a": "crowd", "group_b": "gpt"}]
    each = [("crowd_1", "crowd_2"), ("crowd_1", "gpt"), ("crowd", "gpt")]
    named = [dict(zip(("annotator_a", "annotator_b"), pair, strict=True)) for pair in each]
    found = figures.agreement(pl.DataFrame(kinds, schema=AGREEMENT_GROUPS), pl.DataFrame(named, schema=AGREEMENT))
    assert [(row["name"], row["is_kind"]) for row in found] == [
        ("crowd – crowd", True), ("crowd – gpt", True), ("crowd_1 – crowd_2", False), ("crowd_1 – gpt", False)
    ]  # fmt: skip
