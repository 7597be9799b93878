"""The profile `folders`: dumps and a model from folders of this machine run to the report, by parameters alone."""

from __future__ import annotations

import csv
import json
import random
import re
from html import escape
from typing import TYPE_CHECKING

import pytest

from tests.tiny import make_base

if TYPE_CHECKING:
    from pathlib import Path

    from tests.workspace import Workspace

pytestmark = pytest.mark.slow

COMMON = re.findall(r"\w+", "the of and to in is that it for on with as are this be at from or by not")
OTHERS = re.findall(
    r"\w+",
    "glass barrel yeast water sugar malt bottle cellar pressure valve copper kettle grain flavour season table winter "
    "market village road bridge engine paper window garden stone river letter colour signal number pattern",
)


def prose(rng: random.Random, n_words: int) -> str:
    """Sentences of ten words, no two alike."""
    words = [rng.choice(COMMON if i % 2 else OTHERS) for i in range(n_words)]
    return " ".join(f"{' '.join(words[at : at + 10]).capitalize()}." for at in range(0, n_words, 10))


def xml(name: str, rows: list[dict[str, object]]) -> str:
    cells = ("".join(f' {key}="{escape(str(value))}"' for key, value in row.items()) for row in rows)
    lines = "".join(f"  <row{row} />\r\n" for row in cells)
    return f'<?xml version="1.0" encoding="utf-8"?>\r\n<{name}>\r\n{lines}</{name}>'


def make_origin(folder: Path) -> Path:
    """Small dumps of the four sources, as their upstreams lay them out; more than the profile's quotas ask."""
    rng = random.Random(0)
    site = folder / "stack_exchange/beer.stackexchange.com"
    site.mkdir(parents=True)
    posts: list[dict[str, object]] = []
    for at in range(1, 241, 2):
        title = f"What does a {rng.choice(OTHERS)} number {at} do?"
        ask = {"PostTypeId": 1, "Title": title, "Body": f"<p>{prose(rng, 20)}</p>", "Score": 12}
        reply = {"PostTypeId": 2, "ParentId": at, "Body": f"<p>{prose(rng, 60)}</p>", "Score": 20, "OwnerUserId": 1}
        posts += [{"Id": at, **ask}, {"Id": at + 1, **reply}]
    (site / "Posts.xml").write_text(xml("posts", posts))
    (site / "Users.xml").write_text(xml("users", [{"Id": 1, "DisplayName": "Ann"}]))
    for name in ("wikihow", "reddit", "natural_instructions"):
        (folder / name).mkdir()
    with (folder / "wikihow/wikihowAll.csv").open("w", newline="") as file:
        steps = [
            ("\n".join(f"{prose(rng, 10)}," for _ in range(2)), f"How to Make {rng.choice(OTHERS).title()} {at}",
             "\n\n".join(prose(rng, 20) for _ in range(2)))
            for at in range(650)
        ]  # fmt: skip
        csv.writer(file).writerows([("headline", "title", "text"), *steps])
    asked = [
        (f"a{at}", f"What is the best {rng.choice(OTHERS)} of {rng.choice(OTHERS)} {at}?", "AskReddit", 200 - at % 90)
        for at in range(170)
    ]
    with (folder / "reddit/AskReddit.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("id", "title", "subreddit", "score"), *asked])
    languages = {key: ["English"] for key in ("Input_language", "Output_language", "Instruction_language")}
    for at in range(30):
        instance = {"id": f"task{at}-1", "input": prose(rng, 10), "output": [prose(rng, 10)]}
        task = {"Definition": [f"Say it in other words, way {at}."], **languages, "Instances": [instance]}
        (folder / f"natural_instructions/task{at:03}_other_words.json").write_text(json.dumps(task))
    return folder


def test_folders_run_to_the_report_by_the_profile_alone(fresh: Workspace, tmp_path: Path) -> None:
    origin = make_origin(tmp_path / "origin")
    base = make_base(tmp_path / "base", context_tokens=512)
    fresh.run("python", "-m", "stages.profile", "folders", f"origin={origin}", f"base={base}")
    fresh.repro()
    page = (fresh.root / "reports/report.html").read_text(encoding="utf-8")
    for name in ("stack_exchange", "wikihow", "reddit", "natural_instructions"):
        assert name in page
    assert "judged by length" in page
    assert "mean grade" not in page  # nothing is graded
    assert "kept epoch 3, the only candidate" in page
    score = json.loads((fresh.root / "metrics/score.json").read_text())
    assert score["accuracy"] == {}
    assert score["pairwise"]["base"]["length"]["n"] == 100
    assert score["selected_epoch"] == {"curated": 3, "bulk": 1}
