"""How long a user waits: the main job cold, with nothing to do, and after one changed parameter.

python -m bench.times [--repeats 3] [--cold 1]

Works in a fresh clone with an empty cache. Prints a Markdown table with each figure's lowest, middle and highest.
"""

import argparse
import statistics
from pathlib import Path

from ruamel.yaml import YAML

from bench.workspace import clone, machine, set_param, timed

CHANGES = {  # parameter, value, and whether the change is worth repeating: training is timed once
    "judge: one annotator less": ("judge.annotators", ["reference"], True),
    "score: confidence 0.9": ("score.confidence", 0.9, True),
    "quality: a shorter longest answer": ("quality.rules.length.wikihow.max_chars", 300, False),
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="of every figure but the cold run")
    parser.add_argument("--cold", type=int, default=1, help="cold runs, each in its own clone")
    arguments = parser.parse_args()
    print(f"{machine()}\n")
    print("| what | n | lowest, s | median, s | highest, s | stages run |")
    print("|---|---|---|---|---|---|")
    for _ in range(arguments.cold - 1):
        with clone() as folder:
            show("main job, cold", [timed(folder, "dvc", "repro")[0]], "")
    with clone() as folder:
        seconds, output = timed(folder, "dvc", "repro")
        show("main job, cold", [seconds], ran(output))
        show("nothing to do", [timed(folder, "dvc", "repro")[0] for _ in range(arguments.repeats)], "")
        for name, (path, value, is_quick) in CHANGES.items():
            measure(folder, name, path, value, arguments.repeats if is_quick else 1)


def measure(folder: Path, name: str, path: str, value: object, repeats: int) -> None:
    """Change one parameter, run, change it back; without the run cache, so that stages do run."""
    before = YAML(typ="safe").load((folder / "params.yaml").read_text())
    for key in path.split("."):
        before = before[key]
    all_seconds, stages = [], ""
    for _ in range(repeats):
        set_param(folder, path, value)
        seconds, output = timed(folder, "dvc", "repro", "--no-run-cache")
        all_seconds.append(seconds)
        stages = ran(output)
        set_param(folder, path, before)
        timed(folder, "dvc", "repro")
    show(name, all_seconds, stages)


def ran(output: str) -> str:
    """Names of the stages that DVC says it ran."""
    names = [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")]
    return f"{len(names)}: {', '.join(names)}" if len(names) <= 14 else str(len(names))


def show(name: str, seconds: list[float], stages: str) -> None:
    """Print one row."""
    low, middle, high = min(seconds), statistics.median(seconds), max(seconds)
    print(f"| {name} | {len(seconds)} | {low:.1f} | {middle:.1f} | {high:.1f} | {stages} |", flush=True)


if __name__ == "__main__":
    main()
