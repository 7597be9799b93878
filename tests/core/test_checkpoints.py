"""Which epoch the written rule takes."""

import polars as pl
import pytest

from stages.core.checkpoints import choose_epoch
from stages.schema import EPOCH_GRADE


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
        pytest.param({7: [2, 2]}, 7, id="one candidate"),
    ],
)
def test_the_earliest_epoch_within_one_standard_error_of_the_best(by_epoch: dict, taken: int) -> None:
    assert choose_epoch(grades(by_epoch)) == taken
    assert choose_epoch(grades(by_epoch).reverse()) == taken


def test_the_prompt_is_the_unit_not_the_sample() -> None:
    one = {5: [3, 3, 3, 3], 10: [3, 3, 3, 4]}
    five = {epoch: [value for value in values for _ in range(5)] for epoch, values in one.items()}
    assert choose_epoch(grades(five, n_samples=5)) == choose_epoch(grades(one)) == 5
