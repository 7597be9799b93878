"""What a hostile server does to judging, and what becomes of it.

python -m bench.hostile > bench/results/hostile.md

The cases are those of the tests (tests/runtime/hostile.py); they are run here, against a server on loopback, and what
came of them is printed as Markdown.
"""

import contextlib
import io
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from stages.common import files
from stages.runtime.api import batches, live
from tests.runtime import hostile

ROOT = Path(__file__).parents[1]


def main() -> None:
    """Run every case and print what came of it."""
    os.chdir(ROOT)  # whose templates are read
    os.environ["TEST_KEY"] = "sk-of-the-bench"
    live.FIRST_WAIT_S = batches.FIRST_WAIT_S = 0.01
    quiet = io.StringIO()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
        files.CACHE = Path(folder)
        single, batch = hostile.one_by_one(), hostile.in_a_batch()
        stops = [(name, *hostile.stopped(name)) for name in hostile.STOPS]
    said = quiet.getvalue()
    assert "sk-of-the-bench" not in said
    print("# What a hostile server does to judging, and what becomes of it\n")
    print("`python -m bench.hostile`, which runs the tests' own cases against a server on loopback.\n")
    attempts, seconds = hostile.ANNOTATOR["max_attempts"], hostile.ANNOTATOR["timeout_s"]
    print("`first` and `second` are verdicts, for the answer shown there; all else is unscored, for that reason.\n")
    print(
        f"One by one: {len(single)} at once, at most {attempts} attempts of {seconds} s. The run asks for each twice,"
    )
    print("and replies come in the reverse order of their requests.\n")
    table(single)
    print("\nBy the Batch API, whose lines come in another order than their requests.\n")
    table(batch)
    print("\nWhat stops the run, met by one of 20 requests; then a second run when it is mended.\n")
    print("| the server says | asked | the run ends with | the other 19, both runs, and it again |\n|---|---|---|---|")
    for name, sentence, n_met, n_sent in stops:
        where, _, rest = sentence.partition(": ")
        print(f"| {name} | {n_met}x | {rest or where} | {n_sent} requests |")


def table(rows: Sequence[hostile.Became]) -> None:
    """One line a case."""
    print("| the server sends | asked | becomes | the next run |\n|---|---|---|---|")
    for row in rows:
        print(f"| {row.does} | {row.n_asked}x | {row.became} | {'asks again' if row.again else 'asks nothing'} |")


if __name__ == "__main__":
    main()
