"""Times by a clock of the test's own."""

import itertools

from stages.runtime.run_record import Times


def test_a_part_within_another_counts_once(tmp_path):
    times = Times(itertools.count(10).__next__)  # each look at the clock is a second later
    with times.of("train"), times.of("save"):  # load 1, train 1
        pass  # save 1; then train 1 more
    assert times.seconds == {"load": 1, "preflight": 0, "train": 2, "save": 1, "evaluate": 0}


def test_a_later_start_goes_on_from_the_times_of_the_state(tmp_path):
    first = Times(itertools.count(0).__next__)
    with first.of("train"):
        first.keep(tmp_path)  # load 1, train 1
    second = Times(itertools.count(0).__next__)
    second.go_on(tmp_path)
    with second.of("train"):
        pass
    assert (second.seconds["load"], second.seconds["train"]) == (2, 2)
    assert (second.n_starts, second.started) == (2, first.started)


def test_a_start_without_kept_times_counts_its_own(tmp_path):
    times = Times(itertools.count(0).__next__)
    times.go_on(tmp_path)
    assert times.n_starts == 1
