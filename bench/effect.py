"""The miniature's effect over seeds of the world: exact answers of base, bulk and curated on held-out people.

python -m bench.effect [--seeds 0 1 2]

Each seed is a fresh clone with an empty cache: another world, another base, other dumps. Prints a Markdown table.
"""

import argparse
import json

import polars as pl

from bench.workspace import clone, machine, set_param, timed


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    seeds = parser.parse_args().seeds
    print(f"{machine()}\n")
    print("| seed of the world | base | bulk | curated | curated - bulk, 95 % | contains: bulk, curated | cold, s |")
    print("|---|---|---|---|---|---|---|")
    for seed in seeds:
        with clone() as folder:
            set_param(folder, "miniature.seed", seed)
            seconds, _ = timed(folder, "dvc", "repro")
            accuracy = pl.read_csv(folder / "metrics/score/accuracy.csv")
            difference = pl.read_csv(folder / "metrics/score/difference.csv")
            rate = {(row["responder"], row["measure"]): row["rate"] for row in accuracy.to_dicts()}
            to_bulk = difference.filter(b="bulk", measure="exact").row(0, named=True)
            selected = json.loads((folder / "metrics/score.json").read_text()).get("selected_epoch", {})
        print(
            f"| {seed} | {rate['base', 'exact']:.1%} | {rate['bulk', 'exact']:.1%} | {rate['curated', 'exact']:.1%} | "
            f"{to_bulk['difference']:+.1%} [{to_bulk['low']:+.1%}, {to_bulk['high']:+.1%}], n {to_bulk['n']} | "
            f"{rate['bulk', 'contains']:.1%}, {rate['curated', 'contains']:.1%} | {seconds:.0f} |",
            flush=True,
        )
        print(f"<!-- seed {seed}: selected epochs {selected} -->", flush=True)


if __name__ == "__main__":
    main()
