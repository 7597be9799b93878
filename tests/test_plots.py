"""The declared plots: `dvc plots show` and `dvc plots diff` draw them from any run's tables, without a network."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stages import report
from stages.core.paper_tables import PAPER_AGREEMENT, PAPER_PREFERENCES, PAPER_SHARES
from stages.core.score_tables import ACCURACY, CHECKPOINTS, PAIRWISE, WIN_RATE
from tests import run_tables
from tests.browser import loaded, needs_browser
from tests.workspace import Workspace, read_yaml

ROOT = Path(__file__).parents[1]
PLOTS = {name: properties for entry in read_yaml(ROOT / "dvc.yaml")["plots"] for name, properties in entry.items()}
TEMPLATES = sorted((ROOT / ".dvc/plots").glob("*.json"))
PAGE = ROOT / ".dvc/plots/page.html"

# What npm's packages hold; another version is another line here and in the page's comment.
VENDORED = [
    "463f3db6a40b20e9747b4ed38f37ed0add508838f9141b1cf8366784b07b30c8",  # vega 5.33.1 build/vega.min.js
    "58c27358e26f2d319cf62f45bc17a4c8362f08645001df2ec8d341eee4097c7f",  # vega-lite 5.23.0 build/vega-lite.min.js
    "12d02acfbe3ec59ef9a37dd4822a2e04e2961b5bbb671bbe661d2221715b99da",  # vega-embed 6.29.0 build/vega-embed.min.js
]


def strings(value: Any) -> list[str]:
    """Every string of a JSON tree."""
    if isinstance(value, dict):
        return [text for item in value.items() for text in strings(list(item))]
    if isinstance(value, list):
        return [text for item in value for text in strings(item)]
    return [value] if isinstance(value, str) else []


def keys(value: Any) -> list[str]:
    """Every key of a JSON tree."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [key for name, item in items for key in (str(name), *keys(item))]


@pytest.fixture
def drawn(tmp_path: Path) -> Workspace:
    """A repository that holds the plots' declarations and a committed run's tables, and another run's beside it."""
    root = tmp_path / "project"
    for name in ("dvc.yaml", ".dvc/config", ".dvc/plots"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        copy(ROOT / name, root / name)
    shutil.copyfile(ROOT / "params.yaml", root / "params.yaml")
    run_tables.write_run(tmp_path / "run", n_prompts=20)
    command = [sys.executable, "-m", "stages.report"]
    subprocess.run(command, cwd=tmp_path / "run", check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    shutil.move(tmp_path / "run/metrics", root / "metrics")
    workspace = Workspace(root)
    workspace.run("git", "init", "--quiet")
    workspace.commit("a run")
    changes = str.maketrans({"4": "3"})
    scores = {
        name: [lines[0], *(line.translate(changes) for line in lines[1:])] for name, lines in run_tables.SCORES.items()
    }
    run_tables.write_scores(root, scores)
    return workspace


def specs(page: str) -> list[dict[str, Any]]:
    return [json.loads(found) for found in re.findall(r"var spec = (.*);\n", page)]


def test_every_template_is_used_and_every_plot_has_one() -> None:
    assert sorted(f"{properties['template']}.json" for properties in PLOTS.values()) == [
        path.name for path in TEMPLATES
    ]


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_a_template_fetches_nothing_and_takes_data_and_title(path: Path) -> None:
    template = json.loads(path.read_text(encoding="utf-8"))
    assert template["data"]["values"] == "<DVC_METRIC_DATA>"
    assert template["title"]["text"] == "<DVC_METRIC_TITLE>"
    assert template.pop("$schema") == "https://vega.github.io/schema/vega-lite/v5.json"
    assert not [text for text in strings(template) if "//" in text or text in ("url", "href")]
    assert not [key for key in keys(template) if "DVC_METRIC" in key]  # DVC fills values, not keys


def test_the_plots_name_columns_that_their_tables_have() -> None:
    columns = {
        "metrics/report/loss.csv": {"arm", "step", "epoch", "loss"},
        "metrics/score/checkpoints.csv": set(CHECKPOINTS),
        "metrics/score/accuracy.csv": set(ACCURACY),
        "metrics/score/pairwise.csv": set(PAIRWISE),
        "metrics/score/win_rate.csv": set(WIN_RATE),
        "metrics/score/paper_preferences.csv": set(PAPER_PREFERENCES),
        "metrics/score/paper_shares.csv": set(PAPER_SHARES),
        "metrics/score/paper_agreement.csv": set(PAPER_AGREEMENT),
    }
    assert set(PLOTS) == set(columns)
    for name, properties in PLOTS.items():
        assert {properties["x"], properties["y"]} <= columns[name]
        template = (ROOT / f".dvc/plots/{properties['template']}.json").read_text(encoding="utf-8")
        fields = set(re.findall(r'"field": "([a-z_]+)"', template)) - {"rev", "place", "from", "to", "shown"}
        assert fields <= columns[name]


def test_the_page_holds_the_packages_that_it_names_unchanged() -> None:
    page = PAGE.read_text(encoding="utf-8")
    scripts = re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)
    assert [hashlib.sha256(script.encode()).hexdigest() for script in scripts[:3]] == VENDORED
    assert len(scripts) == 4
    assert "{plot_divs}" in page
    assert "{scripts}" not in page  # DVC would put the addresses of a CDN there
    assert "default-src 'none'" in page
    notices = (PAGE.parent / "LICENSES.txt").read_text(encoding="utf-8")
    for name in ("vega-lite", "vega-embed", "d3-scale", "fast-json-patch", "semver", "topojson-client"):
        assert name in notices


@pytest.mark.slow
def test_show_draws_each_plot_once_from_numbers(drawn: Workspace) -> None:
    drawn.run("dvc", "plots", "show", "--out", "show")
    page = (drawn.root / "show/index.html").read_text(encoding="utf-8")
    assert [spec["title"]["text"] for spec in specs(page)] == [properties["title"] for properties in PLOTS.values()]
    assert "src=" not in re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert "<DVC_METRIC" not in page
    assert len(specs(page)[3]["data"]["values"]) == len(run_tables.SCORES["pairwise"]) - 1


PROBE = """<script>
  const failed = [];
  addEventListener("error", (event) => failed.push(event.message));
  addEventListener("unhandledrejection", (event) => failed.push(String(event.reason)));
  addEventListener("securitypolicyviolation", (event) => failed.push(event.blockedURI + event.violatedDirective));
</script>"""
TELL = """<script>
  const COLOURS = ["0,103,165", "179,74,0", "189,183,173", "148,93,214", "19,173,199"];
  const seen = (canvas) => {
    const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
    const found = new Set();
    for (let i = 0; i < pixels.length; i += 4) found.add(pixels.slice(i, i + 3).join());
    return COLOURS.filter((colour) => found.has(colour));
  };
  const tell = () => {
    const pictures = Array.from(document.querySelectorAll("canvas"), seen);
    document.title = JSON.stringify({pictures, failed});
  };
  setTimeout(tell, 1500);
</script>"""
BLUE, ORANGE, GREY, FIRST, SECOND = "0,103,165", "179,74,0", "189,183,173", "148,93,214", "19,173,199"


def pictures(drawn: Workspace) -> dict[str, Any]:
    """What `dvc plots diff` shows in a browser: of each picture which of the colours it has, and what went wrong."""
    drawn.run("dvc", "plots", "diff", "HEAD", "--out", "diff")
    path = drawn.root / "diff/index.html"
    top, head, rest = path.read_text(encoding="utf-8").partition("<head>")
    body, end, bottom = rest.rpartition("</body>")
    path.with_name("probe.html").write_text("".join([top, head, PROBE, body, TELL, end, bottom]), encoding="utf-8")
    dom = loaded(path.with_name("probe.html").as_uri(), drawn.root / "profile")
    found = re.search(r"<title>(\{.*?\})</title>", dom)
    assert found is not None
    return json.loads(found[1])  # type: ignore[no-any-return]


@pytest.mark.slow
@needs_browser
def test_diff_is_drawn_without_a_network(drawn: Workspace) -> None:
    told = pictures(drawn)
    page = (drawn.root / "diff/index.html").read_text(encoding="utf-8")
    assert {row["rev"] for row in specs(page)[3]["data"]["values"]} == {"workspace", "HEAD"}
    assert told["failed"] == []
    arms, revisions, outcomes = [BLUE, ORANGE], [FIRST, SECOND], [BLUE, ORANGE, GREY]
    assert told["pictures"] == [arms, revisions, revisions, outcomes, revisions, outcomes, revisions, revisions]


@pytest.mark.slow
@needs_browser
def test_what_the_epoch_was_chosen_by_is_drawn_where_nothing_is_graded(drawn: Workspace) -> None:
    """Without a perplexity either, so that nothing else is in that picture."""
    head, *rows = run_tables.SCORES["checkpoints"]
    cells = [row.split(",") for row in rows]
    bare = [",".join([*row[:3], "", "", "", row[6], "", "pairs", *row[9:]]) for row in cells]
    run_tables.write_scores(drawn.root, {"checkpoints": [head, *bare]})
    drawn.commit("chosen by pairs")
    told = pictures(drawn)
    assert told["failed"] == []
    assert told["pictures"][1] == [SECOND]  # the workspace is HEAD, and lies over it


def test_the_loss_table_is_the_reports() -> None:
    outs = read_yaml(ROOT / "dvc.yaml")["stages"]["report"]["outs"]
    assert "metrics/report/loss.csv" in outs
    assert "metrics/report/loss.csv" in (report.__doc__ or "")
