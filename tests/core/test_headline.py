import polars as pl

from stages.core.headline import THIN, Cast, bounds, headline, percent, signed
from stages.core.score_tables import ACCURACY, DIFFERENCE, GRADES, PAIRWISE

CAST = Cast(
    judged="ours",
    arms=("ours", "theirs"),
    opponents=("base", "theirs"),
    untuned=("base",),
    n_examples={"ours": 1000, "theirs": 52_000},
    annotators=("gpt", "length"),
    confidence=0.95,
)


def told(
    accuracy: list[tuple[object, ...]] = [],  # noqa: B006 - never changed
    difference: list[tuple[object, ...]] = [],  # noqa: B006
    pairwise: list[tuple[object, ...]] = [],  # noqa: B006
    grades: list[tuple[object, ...]] = [],  # noqa: B006
) -> list[str]:
    sentences = headline(
        CAST,
        accuracy=pl.DataFrame(accuracy, schema=ACCURACY, orient="row"),
        difference=pl.DataFrame(difference, schema=DIFFERENCE, orient="row"),
        pairwise=pl.DataFrame(pairwise, schema=PAIRWISE, orient="row"),
        grades=pl.DataFrame(grades, schema=GRADES, orient="row"),
    )
    return [sentence.replace(THIN, " ") for sentence in sentences]


ACCURATE = [("theirs", "exact", 300, 0.61, 0.55, 0.66), ("ours", "exact", 300, 0.84, 0.79, 0.88)]
VERDICTS = [
    ("theirs", "gpt", "win", 300, 0.53, 0.47, 0.59),
    ("theirs", "gpt", "lose", 300, 0.26, 0.21, 0.31),
    ("theirs", "length", "win", 300, 1.0, 0.99, 1.0),
    ("theirs", "length", "lose", 300, 0.0, 0.0, 0.01),
]


def test_checkable_answers_come_first() -> None:
    assert told(accuracy=ACCURATE, pairwise=VERDICTS) == [
        "ours (1,000 examples) answers 84 % [79, 88] of 300 checkable test prompts exactly; "
        "theirs (52,000 examples) 61 % [55, 66]."
    ]


def test_a_difference_clear_of_zero_is_told_with_its_direction() -> None:
    rows = [("ours", "theirs", "exact", 300, 0.23, 0.17, 0.29), ("ours", "base", "exact", 300, 0.8, 0.7, 0.9)]
    assert told(accuracy=ACCURATE, difference=rows)[1] == "ours is 23 points above theirs [17, 29]."
    rows = [("ours", "theirs", "exact", 300, -0.23, -0.29, -0.17)]
    assert told(accuracy=ACCURATE, difference=rows)[1] == "ours is 23 points below theirs [17, 29]."


def test_a_difference_that_may_be_zero_is_no_difference() -> None:
    rows = [("ours", "theirs", "exact", 50, 0.02, -0.08, 0.12)]
    said = told(accuracy=ACCURATE, difference=rows)[1]
    assert said == "the difference of +2 points [−8, +12] between ours and theirs is not clear of 0."


def test_a_difference_on_another_measure_is_not_in_the_headline() -> None:
    assert len(told(accuracy=ACCURATE, difference=[("ours", "theirs", "finished", 300, 0.5, 0.4, 0.6)])) == 1


def test_without_checkable_prompts_the_first_annotator_speaks() -> None:
    assert told(pairwise=VERDICTS) == [
        "ours (1,000 examples), judged by gpt: against theirs (52,000 examples) it wins 53 % [47, 59] "
        "and loses 26 % [21, 31] of 300 prompts."
    ]


def test_the_next_annotator_speaks_where_the_first_said_nothing() -> None:
    assert "judged by length" in told(pairwise=VERDICTS[2:])[0]


def test_without_verdicts_the_grades_speak() -> None:
    rows = [("ours", "gpt", 50, 4.25, 4.0, 4.5, 0.1, 0.4, 0.5, 0, None), ("theirs", "gpt", 0, *[None] * 7, 0, None)]
    rows[1] = ("theirs", "gpt", 0, None, None, None, None, None, None, 0, None)
    assert told(grades=rows) == ["Mean helpfulness from 1 to 6: ours (1,000 examples) 4.25 [4.00, 4.50]."]


def test_a_run_without_judgement_claims_nothing() -> None:
    assert told() == ["ours (1,000 examples) was trained and has answered; nothing has judged the answers yet."]


def test_the_judged_arm_without_a_rate_is_not_outshone_by_the_others() -> None:
    assert told(accuracy=ACCURATE[:1]) == told()


def test_all_and_nothing_are_said_only_of_all_and_nothing() -> None:
    assert [percent(share).removesuffix(f"{THIN}%") for share in (0, 0.001, 0.004, 0.5, 0.996, 0.9999, 1)] == [
        "0", "0.1", "0.4", "50", "99.6", "100.0", "100",
    ]  # fmt: skip


def test_an_interval_that_is_not_known_is_empty() -> None:
    assert bounds(None, 0.5) == bounds(0.5, None) == ""


def test_zero_has_no_sign() -> None:
    assert [signed(value, 1) for value in (-0.04, 0, 0.04, 0.06, -0.06)] == ["0.0", "0.0", "0.0", "+0.1", "−0.1"]
