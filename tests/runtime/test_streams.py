from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from stages.common.errors import InputError
from stages.common.files import read_table, write_table
from stages.runtime.streams import batches, scan_table, sink_table

SCHEMA: dict[str, pl.DataType] = {"id": pl.String(), "n": pl.Int64()}
FRAME = pl.DataFrame({"id": [f"a:{i}" for i in range(5000)], "n": range(5000)})


def test_a_table_written_in_a_stream_is_read_back_whole_and_in_order(tmp_path: Path) -> None:
    sink_table(tmp_path / "new/a.parquet", FRAME.lazy(), SCHEMA)
    assert read_table(tmp_path / "new/a.parquet", SCHEMA).equals(FRAME)
    assert scan_table(tmp_path / "new/a.parquet", SCHEMA).collect().equals(FRAME)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.parquet"]


def test_batches_are_of_the_size_asked_for_at_the_most_and_in_order(tmp_path: Path) -> None:
    write_table(tmp_path / "a.parquet", FRAME, SCHEMA)
    parts = list(batches(scan_table(tmp_path / "a.parquet", SCHEMA), n_rows=300))
    assert max(map(len, parts)) <= 300
    assert pl.concat(parts).equals(FRAME)
    assert list(batches(FRAME.lazy().clear(), n_rows=5)) in ([], [FRAME.clear()])


def test_a_stream_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    write_table(tmp_path / "a.parquet", FRAME, SCHEMA)
    with pytest.raises(pl.exceptions.PolarsError):
        sink_table(tmp_path / "a.parquet", FRAME.lazy().select("id", n="id"), SCHEMA)
    assert read_table(tmp_path / "a.parquet", SCHEMA).equals(FRAME)
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"]


def test_faults_name_the_file_and_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    with pytest.raises(InputError, match=r"a\.parquet: no such file; `dvc repro` makes it"):
        scan_table(path, SCHEMA)
    path.write_bytes(b"PAR1 no")
    with pytest.raises(InputError, match=r"a\.parquet: not readable parquet .*; `dvc repro` makes it anew"):
        scan_table(path, SCHEMA)
    write_table(path, FRAME.select("id"), {"id": pl.String()})
    with pytest.raises(InputError, match=r"a\.parquet: not the columns of stages/schema.py, first at 'n'"):
        scan_table(path, SCHEMA)
