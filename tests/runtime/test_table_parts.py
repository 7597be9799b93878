import random

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stages.common.errors import InputError
from stages.runtime import table_parts
from stages.runtime.table_parts import PartWriter, merge_parts

SCHEMA = {"id": pl.String(), "messages": pl.List(pl.Struct({"role": pl.String, "content": pl.String}))}


def row(i):
    return (i, [{"role": "user", "content": f"text of {i}"}])


def parts(folder, cuts):
    folder.mkdir()
    for number, ids in enumerate(cuts):
        writer = PartWriter(folder, f"p-{number:03d}", SCHEMA, memory_bytes=10**6)
        for i in ids:
            writer.add(row(i), 1)
        writer.close()
    return sorted(folder.iterdir())


@pytest.fixture
def few_rows(monkeypatch):
    """Row groups of ten rows, parts read three rows at a time."""
    monkeypatch.setattr(table_parts, "GROUP_ROWS", 10)
    monkeypatch.setattr(table_parts, "_STEP_ROWS", 3)


@pytest.mark.usefixtures("few_rows")
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sets(st.integers(0, 999), max_size=60), st.integers(1, 5), st.booleans(), st.randoms())
def test_the_file_is_the_rows_by_id_whatever_the_parts(tmp_path_factory, numbers, n_parts, apart, rng):
    ids = [f"s:{number}" for number in sorted(numbers)]
    ordered = sorted(ids) if apart else rng.sample(ids, len(ids))
    size = max(1, len(ids) // n_parts)
    folder = tmp_path_factory.mktemp("merge")
    cuts = [ordered[i : i + size] for i in range(0, len(ids), size)]
    assert merge_parts(parts(folder / "in", cuts), folder / "out.parquet", SCHEMA) == len(ids)
    assert pl.read_parquet(folder / "out.parquet").rows() == [row(i) for i in sorted(ids)]


@pytest.mark.usefixtures("few_rows")
def test_the_bytes_do_not_depend_on_the_parts(tmp_path):
    ids = sorted(f"s:{i}" for i in range(95))
    shuffled = random.Random(0).sample(ids, len(ids))
    written = set()
    for name, order, size in (("a", ids, 95), ("b", ids, 7), ("c", shuffled, 31), ("d", shuffled, 12)):
        cuts = [order[i : i + size] for i in range(0, len(ids), size)]
        merge_parts(parts(tmp_path / name, cuts), tmp_path / f"{name}.parquet", SCHEMA)
        written.add((tmp_path / f"{name}.parquet").read_bytes())
    assert len(written) == 1


@pytest.mark.usefixtures("few_rows")
@pytest.mark.parametrize(
    "cuts", [[["s:1", "s:2"], ["s:2"]], [[f"s:{i:02d}" for i in range(40)], ["s:10"]], [["s:1", "s:1"]]]
)
def test_an_id_given_twice_is_refused_and_nothing_is_left(tmp_path, cuts):
    with pytest.raises(InputError, match=r"s:\d+: ids must be unique"):
        merge_parts(parts(tmp_path / "in", cuts), tmp_path / "out" / "t.parquet", SCHEMA)
    assert not list(tmp_path.rglob("*t.parquet*"))


def test_a_part_is_written_when_the_memory_is_full(tmp_path):
    writer = PartWriter(tmp_path, "p", SCHEMA, memory_bytes=300)
    for i in range(10):
        writer.add(row(f"s:{9 - i}"), 25)
    writer.close()
    sizes = [pl.read_parquet(path)["id"].to_list() for path in sorted(tmp_path.iterdir())]
    assert sizes == [["s:6", "s:7", "s:8", "s:9"], ["s:2", "s:3", "s:4", "s:5"], ["s:0", "s:1"]]
