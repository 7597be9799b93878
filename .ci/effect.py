"""Hold metrics/score.json of the embedded default against what it has to show, on people that no example names.

python .ci/effect.py metrics/score.json
"""

import json
import sys
from pathlib import Path
from typing import Any


def faults(score: dict[str, Any]) -> list[str]:
    """What is not as it should be, a sentence each; shares of exact answers, the interval of the difference."""
    accuracy, apart = score["accuracy"], score["difference"]["bulk"]["exact"]
    base, curated = accuracy["base"]["exact"], accuracy["curated"]["exact"]
    limits = [
        (base <= 0.05, f"base: must answer at most 5 % exactly, got {base:.1%}"),
        (curated >= 0.70, f"curated: must answer at least 70 % exactly, got {curated:.1%}"),
        (
            apart["difference"] >= 0.10,
            f"curated - bulk: must be at least 10 points, got {100 * apart['difference']:.1f}",
        ),
        (
            apart["low"] > 0,
            f"curated - bulk: the interval must be clear of 0, got {apart['low']:.3f} to {apart['high']:.3f}",
        ),
    ]
    return [sentence for holds, sentence in limits if not holds]


if __name__ == "__main__":
    found = faults(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    print("\n".join(found) or "the effect is there", file=sys.stderr if found else sys.stdout)
    sys.exit(bool(found))
