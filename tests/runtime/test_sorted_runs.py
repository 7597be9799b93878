from itertools import pairwise

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stages.runtime import sorted_runs
from stages.runtime.sorted_runs import Runs, RunWriter


def runs_of(folder, rows, size):
    writer = RunWriter(folder, "r", n_columns=2, memory_bytes=0)
    writer.max_rows = size
    for row in rows:
        writer.add(np.array([row], np.int64))
    writer.close()
    return Runs(folder, "r", n_columns=2)


rows_ = st.lists(st.tuples(st.integers(-9, 40), st.integers(0, 5)), max_size=60)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows_, st.integers(1, 20), st.integers(1, 30))
def test_ranges_hold_every_row_once_and_in_order(tmp_path_factory, rows, size, max_rows):
    runs = runs_of(tmp_path_factory.mktemp("runs"), rows, size)
    bounds = runs.bounds(max_rows)
    found = [tuple(row) for low, high in bounds for row in runs.between(low, high).tolist()]
    assert found == sorted(rows)
    assert all(a[1] == b[0] for a, b in pairwise(bounds))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows_, st.integers(1, 20), st.sets(st.integers(-9, 40)))
def test_rows_are_found_by_their_keys(tmp_path_factory, rows, size, keys):
    runs = runs_of(tmp_path_factory.mktemp("runs"), rows, size)
    found = runs.of(np.array(sorted(keys), np.int64))
    assert [tuple(row) for row in found.tolist()] == sorted(row for row in rows if row[0] in keys)


def test_memory_says_how_long_a_run_is(tmp_path):
    writer = RunWriter(tmp_path, "r", n_columns=2, memory_bytes=2000 * sorted_runs._BYTES_A_ROW)
    writer.add(np.zeros((3000, 2), np.int64))
    writer.add(np.zeros((10, 2), np.int64))
    writer.close()
    assert [len(keys) for keys in Runs(tmp_path, "r", n_columns=2).keys] == [3000, 10]
