from pathlib import Path

import pytest

from stages.common.errors import InputError
from stages.common.files import write_text


def test_a_file_that_cannot_be_written_or_replaced_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "a.txt", tmp_path / "folder"):
        with pytest.raises(InputError, match=rf"^{path}: cannot be written, .*; free space or mend its rights$"):
            write_text(path, "text")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]
