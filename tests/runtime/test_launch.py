"""Processes of one host, started and ended together."""

import os
import sys
import time

import pytest

from stages.common.errors import InputError
from stages.core.topology import Hosts
from stages.runtime.launch import launch

ALONE = Hosts(1, 0, "127.0.0.1", 0)


def python(text):
    return [sys.executable, "-c", text]


def test_each_process_has_its_rank_and_all_one_port(tmp_path):
    code = (
        "import os, pathlib; e = os.environ; pathlib.Path(e['OUT'], e['RANK']).write_text("
        "' '.join(e[name] for name in ('WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR', 'MASTER_PORT', 'LIMA_STARTED')))"
    )
    launch(python(code), ALONE, 2, extra={"OUT": str(tmp_path)})
    first, second = ((tmp_path / rank).read_text().split() for rank in ("0", "1"))
    assert first[:3] == ["2", "0", "127.0.0.1"]
    assert second[:2] == ["2", "1"]
    assert first[3:] == second[3:]


def test_what_another_process_said_is_shown(capfd):
    code = "import os, sys, time\nif os.environ['RANK'] == '1': sys.exit('out of memory')\ntime.sleep(600)"
    with pytest.raises(InputError, match="sft: process 1 of 2"):
        launch(python(code), ALONE, 2, extra={})
    assert "out of memory" in capfd.readouterr().err


def test_one_that_fails_ends_the_others_and_is_named(tmp_path):
    code = (
        "import os, pathlib, sys, time\nif os.environ['RANK'] == '1': sys.exit(3)\n"
        "pathlib.Path(os.environ['OUT']).write_text(str(os.getpid())); time.sleep(600)"
    )
    start = time.monotonic()
    with pytest.raises(InputError, match="sft: process 1 of 2 ended with status 3"):
        launch(python(code), ALONE, 2, extra={"OUT": str(tmp_path / "pid")})
    assert time.monotonic() - start < 300
    if (tmp_path / "pid").exists() and (pid := (tmp_path / "pid").read_text()):
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)
