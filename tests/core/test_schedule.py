import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.core.schedule import schedule, steps_per_epoch


def run(n, *, epochs=2, size=4, lr=1.0, lr_end=0.1, seed=0):
    return list(schedule(n, epochs=epochs, global_batch_size=size, lr=lr, lr_end=lr_end, seed=seed))


def test_lr_goes_from_lr_at_the_first_step_to_lr_end_at_the_last():
    steps = run(10, epochs=15, size=1, lr=1e-5, lr_end=1e-6)
    assert steps[0].lr == 1e-5
    assert steps[-1].lr == pytest.approx(1e-6)
    middle = steps[len(steps) // 2]
    assert middle.lr == pytest.approx(1e-5 - 9e-6 * 75 / 149)


def test_the_papers_run_of_1000_examples_in_batches_of_32_takes_480_steps():
    assert len(run(1000, epochs=15, size=32)) == 480


def test_a_last_partial_batch_is_a_step_and_ends_the_epoch():
    steps = run(10, epochs=1, size=4)
    assert [len(step.examples) for step in steps] == [4, 4, 2]
    assert [step.ends_epoch for step in steps] == [False, False, True]


def test_one_step_has_the_first_lr():
    assert [step.lr for step in run(3, epochs=1, size=4)] == [1.0]


@given(st.integers(1, 50), st.integers(1, 4), st.integers(1, 9), st.integers(0, 3))
def test_each_epoch_sees_each_example_once(n, epochs, size, seed):
    steps = run(n, epochs=epochs, size=size, seed=seed)
    assert len(steps) == epochs * steps_per_epoch(n, global_batch_size=size)
    for epoch in range(1, epochs + 1):
        seen = [example for step in steps if step.epoch == epoch for example in step.examples]
        assert sorted(seen) == list(range(n))


def test_epochs_have_their_own_order_and_a_seed_repeats_it():
    first, second = run(50, size=50)
    assert first.examples != second.examples
    assert run(50, size=50) == [first, second]
    assert run(50, size=50, seed=1)[0].examples != first.examples
