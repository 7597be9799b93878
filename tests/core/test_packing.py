"""Packed rows, by hand and by property."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.core.packing import n_supervised, pack, share_out

IDS = [[5, 6, 7, 8], [9, 3], [4, 4, 1]]
MASKS = [[0, 1, 1, 1], [0, 1], [1, 0, 1]]


def test_a_row_as_in_the_docstring():
    row = pack([0, 1, 2], IDS, MASKS)
    assert row.input_ids.tolist() == [[5, 6, 7, 8, 9, 3, 4, 4, 1]]
    assert row.position_ids.tolist() == [[0, 1, 2, 3, 0, 1, 0, 1, 2]]
    assert row.lengths == (4, 2, 3)
    # The first token of an example is never predicted from the last of the one before, whatever its mask.
    assert row.predict.tolist() == [0, 1, 2, 4, 7]
    assert row.targets.tolist() == [6, 7, 8, 3, 1]
    assert [n_supervised(mask) for mask in MASKS] == [3, 1, 1]


def test_a_supervised_token_keeps_its_loss_whatever_its_id():
    assert pack([0], [[7, 0, 0]], [[0, 1, 0]]).targets.tolist() == [0]


def test_an_empty_row_has_nothing():
    row = pack([], IDS, MASKS)
    assert row.input_ids.shape == (1, 0)
    assert row.lengths == ()


LENGTHS = st.lists(st.integers(1, 20), min_size=1, max_size=30)


@given(LENGTHS, st.integers(20, 60), st.integers(1, 4))
def test_every_example_is_once_in_a_pack_within_the_budget(lengths, max_tokens, n_workers):
    plan = share_out(range(len(lengths)), lengths, max_tokens=max_tokens, n_workers=n_workers)
    assert sorted(i for worker in plan for part in worker for i in part) == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in part) <= max_tokens for worker in plan for part in worker)
    assert len({len(worker) for worker in plan}) == 1
    assert len(plan) == n_workers


@given(LENGTHS, st.integers(20, 60))
def test_the_order_in_which_examples_are_named_changes_nothing(lengths, max_tokens):
    forward = share_out(range(len(lengths)), lengths, max_tokens=max_tokens, n_workers=2)
    assert forward == share_out(range(len(lengths))[::-1], lengths, max_tokens=max_tokens, n_workers=2)


def test_workers_get_like_shares():
    plan = share_out(range(8), [8, 7, 6, 5, 4, 3, 2, 1], max_tokens=18, n_workers=2)
    assert plan == [[[0, 3, 4, 7]], [[1, 2, 5, 6]]]


@pytest.mark.parametrize("n_workers", [3, 5])
def test_a_worker_may_stay_without_an_example_but_not_without_a_pack(n_workers):
    plan = share_out([0, 1], [4, 4], max_tokens=8, n_workers=n_workers)
    assert [len(worker) for worker in plan] == [1] * n_workers
