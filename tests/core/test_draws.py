from __future__ import annotations

import numpy as np
from scipy.stats import kstest

from stages.core.draws import stream, uniform_by_id

IDS = [f"wikihow:{i}" for i in range(5000)]


def test_a_draw_belongs_to_its_id_and_not_to_its_place() -> None:
    forward = dict(zip(IDS, uniform_by_id(IDS, seed=1, purpose="title"), strict=True))
    backward = dict(zip(IDS[::-1], uniform_by_id(IDS[::-1], seed=1, purpose="title"), strict=True))
    assert forward == backward


def test_draws_are_uniform() -> None:
    draws = uniform_by_id(IDS, seed=1, purpose="title")
    assert draws.min() >= 0
    assert draws.max() < 1
    assert kstest(draws, "uniform").pvalue > 0.01


def test_another_seed_or_purpose_draws_anew() -> None:
    plain = uniform_by_id(IDS, seed=1, purpose="title")
    for other in (uniform_by_id(IDS, seed=2, purpose="title"), uniform_by_id(IDS, seed=1, purpose="within")):
        assert abs(np.corrcoef(plain, other)[0, 1]) < 0.05


def test_a_stream_is_its_own_for_each_seed_and_purpose() -> None:
    first = [stream(seed=seed, purpose=purpose).random() for seed in (0, 1) for purpose in ("train a", "train b")]
    assert len(set(first)) == 4
    assert stream(seed=0, purpose="train a").random() == first[0]
