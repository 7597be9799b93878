import http.server
import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from html import escape, unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from stages import report
from stages.common.errors import InputError, LimaError
from stages.common.files import read_table, write_json, write_table
from stages.schema import EXAMPLE, PROMPT, RESPONSE, VERDICT
from tests import run_tables
from tests.browser import loaded, needs_browser

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>&amp;{{ 7 * 7 }}\u202egnp.exe\x00\u2066"


class Seen(HTMLParser):
    """Elements, attributes and text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self._inside: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        self._inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        self._inside.append(f"/{tag}")
        self.text += " " if tag in ("td", "th") else ""

    def handle_data(self, data: str) -> None:
        if self._inside[-1:] not in (["script"], ["style"]):
            self.text += data

    @property
    def words(self) -> str:
        return " ".join(self.text.split())


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    run_tables.write_run(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(project: Path) -> str:
    report.main()
    return (project / "reports/report.html").read_text(encoding="utf-8")


def change(path: Path, schema: dict[str, Any], edit: Callable[[list[dict[str, Any]]], object]) -> None:
    rows = read_table(path, schema).to_dicts()
    edit(rows)
    write_table(path, pl.DataFrame(rows, schema=schema), schema)


def test_the_headline_says_what_the_run_shows(project: Path) -> None:
    words = Seen(written(project)).words
    assert (
        "Curated (36 examples) answers 84\u202f% [79, 88] of 300 checkable test prompts exactly; "
        "bulk (180 examples) 61\u202f% [55, 66]; base (the untuned model) 0\u202f% [0, 1]."
        in words.replace(" %", "\u202f%")
    )
    assert "Curated is 23 points above bulk [17, 29]." in words


def test_every_part_of_the_run_is_told(project: Path) -> None:
    words = Seen(written(project)).words
    assert "stack_exchange 5,210 3,110 210 1,890" in words
    assert "first person 900" in words
    words = words.replace("\u202f", " ")
    assert "win 31 % [26, 37]" in words
    assert "5 unscored" in words
    assert "length – reference 270 64 % [60, 68] 0.31 [0.20, 0.40] 0.25 10 % 40 %" in words
    assert "base reference 270 92 % [90, 94]" in words
    assert "90 % [87, 93] 34 161 7.2 points" in words
    assert "– 34 161 7.8 points" in words
    assert "base: −2.28 [−2.67, −1.89]−2.28 [−2.67, −1.89]" in words
    assert "reference – length" not in words  # the two are a kind each already
    assert "length 600 0.250 [0.200, 0.300] 90 10 < 0.0001" in words
    assert "Fail 14 % [10, 19] · Pass 3 % [1, 6] · Excellent 83 % [78, 87]" in words
    assert "safe, malicious 60 % [31, 83] of 10" in words
    assert "kept epoch 10, the earliest whose mean grade on the dev prompts is within one paired standard" in words
    assert "300 prompts with a fifth of ties show 7.2 points" in words
    assert "Alpaca 65B" in words
    assert "CC BY-SA 4.0 · https://example.org/q/1" in words
    assert "licence unknown" in words
    assert "✗ wrong" in words
    assert "cut off at 48 tokens" in words
    assert "bulk wins" in words
    assert "No reference: only a judge can tell." in words
    assert "nearest row 0.700 0.500 0.400 to 0.600 0.500" in words  # coverage of curated, of random draws, of bulk


def test_rows_that_had_no_room_are_counted_apart_and_not_as_trained_on(project: Path) -> None:
    """`render` left two of bulk's 180 rows out; the last, wikihow:bulk-179, is of a source with 60."""
    rows = run_tables.examples("bulk", 180)
    metrics = run_tables.render_metrics(rows[:178]) | {"n_no_room": 2, "no_room": [row["id"] for row in rows[178:]]}
    write_json(project / "metrics/render/bulk.json", metrics)
    change(project / "data/sample/bulk.parquet", EXAMPLE, lambda rows: rows[-1].update(messages=[]))
    words = Seen(written(project)).words
    assert "bulk (178 examples) 61" in words
    assert re.search(r"wikihow 900 20 20 860 .* 12 59 ", words)
    assert "drawn, but no room for a response: not in 0 2 " in words
    assert "bulk 178 examples" in words
    assert "180" not in words.replace("180,", "")


def test_no_line_tells_of_rows_without_room_where_there_are_none(project: Path) -> None:
    assert "no room" not in Seen(written(project)).words


@pytest.mark.parametrize(
    ("kind", "path", "untuned"),
    [("model", "models/base", True), ("model", "./models/base/", True), ("model", "models/other", False),
     ("in_context", "models/base", False)],
)  # fmt: skip
def test_the_untuned_model_is_the_base_that_answers_as_it_is(
    project: Path, kind: str, path: str, untuned: bool
) -> None:
    opponents = run_tables.PARAMS["opponents"] | {"base": {"kind": kind, "path": path}}
    (project / "params.yaml").write_text(json.dumps(run_tables.PARAMS | {"opponents": opponents}))
    assert ("base (the untuned model)" in Seen(written(project)).words) == untuned


def test_an_absent_rate_is_said_in_words_and_not_as_zero(project: Path) -> None:
    words = Seen(written(project)).words.replace("\u202f", " ")
    assert "curated reference 270 5.10 [4.90, 5.30]" in words
    assert "not measured" in words  # nobody judged the safety of curated
    assert "80 % of 30" in words


def test_a_run_that_nobody_judged_has_a_page_that_says_so(project: Path) -> None:
    run_tables.write_scores(project, {name: lines[:1] for name, lines in run_tables.SCORES.items()})
    write_json(project / "metrics/score.json", {"pairwise": {}})
    change(project / "data/prompts/test.parquet", PROMPT, lambda rows: [row.update(references=None) for row in rows])
    for opponent in ("base", "bulk"):
        change(project / f"data/judge/{opponent}.parquet", VERDICT, list.clear)
    words = Seen(written(project)).words
    for sentence in (
        "nothing has judged the answers yet",
        "No test prompt of this run has a reference",
        "No pair of answers was judged in this run.",
        "Agreement was not measured",
        "No answer was graded in this run.",
        "No checkpoint was graded in this run.",
    ):
        assert sentence in words
    assert "✗ wrong" not in words


def test_a_run_without_any_row_has_a_page(project: Path) -> None:
    for path, schema in (
        ("data/sample/bulk.parquet", EXAMPLE),
        ("data/prompts/test.parquet", PROMPT),
        ("data/prompts/dev.parquet", PROMPT),
        ("data/respond/curated.parquet", RESPONSE),
        ("data/respond_opponent/base.parquet", RESPONSE),
        ("data/respond_opponent/bulk.parquet", RESPONSE),
        ("data/judge/base.parquet", VERDICT),
        ("data/judge/bulk.parquet", VERDICT),
    ):
        change(project / path, schema, list.clear)
    write_json(project / "metrics/render/bulk.json", run_tables.render_metrics([]))
    for arm in ("bulk", "curated"):
        (project / f"data/sft/{arm}/loss.csv").write_text("step,epoch,loss,lr,n_supervised_tokens\n")
    words = Seen(written(project)).words
    assert "There are no test prompts." in words
    assert "No training loss was logged." in words
    assert "This arm has no examples." in words


def poison(project: Path) -> None:
    """Put hostile text wherever text is from data."""

    def prompt(rows: list[dict[str, Any]]) -> None:
        rows[1] |= {"group": HOSTILE, "references": [HOSTILE], "messages": [{"role": "user", "content": HOSTILE}]}

    def example(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            row |= {"author": HOSTILE, "license": HOSTILE, "domain": HOSTILE, "created": HOSTILE, "group": HOSTILE}
            row |= {
                "url": "javascript:alert(1)//https://example.org",
                "messages": [{"role": HOSTILE, "content": HOSTILE}],
            }

    change(project / "data/prompts/test.parquet", PROMPT, prompt)
    change(project / "data/sample/curated.parquet", EXAMPLE, example)
    change(
        project / "data/respond/curated.parquet", RESPONSE, lambda rows: [row.update(response=HOSTILE) for row in rows]
    )
    change(project / "data/judge/bulk.parquet", VERDICT, lambda rows: [row.update(reply=HOSTILE) for row in rows])
    metrics = run_tables.QUALITY["sources"] | {HOSTILE: {"n_in": 7, "n_kept": 0, "dropped": {HOSTILE: 7}}}
    write_json(project / "metrics/quality.json", {"sources": metrics})


def test_text_from_data_is_never_markup(project: Path) -> None:
    clean = Seen(written(project))
    poison(project)
    html = written(project)
    page = Seen(html)
    assert page.tags.count("script") == 1
    assert set(page.tags) == set(clean.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert {value for name, value in page.attributes if name in ("href", "src", "action")} <= {
        value for name, value in clean.attributes if name == "href"
    }
    assert page.text.count("<script>alert(1)</script>") > 20  # shown as what it is
    assert "{{ 7 * 7 }}" in page.text
    assert "javascript:alert" not in html
    assert "not a web address" in page.text


def test_characters_that_turn_the_reading_direction_are_shown_by_their_code_points(project: Path) -> None:
    poison(project)
    html = written(project)
    assert not set(html) & {"\u202e", "\u2066", "\x00"}
    assert "⟨U+202E⟩gnp.exe⟨U+0000⟩⟨U+2066⟩" in html


def test_the_outcomes_of_a_card_survive_as_json(project: Path) -> None:
    page = Seen(written(project))
    outcomes = [json.loads(value or "") for name, value in page.attributes if name == "data-outcomes"]
    assert len(outcomes) == 60
    assert outcomes[1]["bulk"] == {"reference": "win", "length": "win"}
    assert outcomes[50]["bulk"]["length"] == "inconsistent"
    assert outcomes[50]["bulk"]["reference"] == "not_applicable"


def test_the_policy_allows_this_style_and_this_script_and_no_address(project: Path) -> None:
    html = written(project)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)
    assert policy is not None
    assert policy[1].startswith("default-src 'none'; ")
    allowed = policy[1].replace("&#39;", "'")
    for element, directive in (("style", "style-src"), ("script", "script-src")):
        found = re.findall(rf"<{element}>(.*?)</{element}>", html, flags=re.DOTALL)
        assert len(found) == 1
        assert f"{directive} '{report.policy_hash(found[0])}'" in allowed
    assert not re.findall(r"@import|url\(|style=", html)
    assert "http" not in allowed


def test_the_same_tables_give_the_same_bytes_whatever_the_order_of_rows(project: Path) -> None:
    first = written(project), (project / "metrics/report/loss.csv").read_bytes()
    for path, schema in (
        ("data/judge/bulk.parquet", VERDICT),
        ("data/respond/curated.parquet", RESPONSE),
        ("data/sample/curated.parquet", EXAMPLE),
        ("data/prompts/test.parquet", PROMPT),
    ):
        change(project / path, schema, list.reverse)
    assert (written(project), (project / "metrics/report/loss.csv").read_bytes()) == first


def test_of_several_answers_the_first_is_shown_and_that_is_said(project: Path) -> None:
    def twice(rows: list[dict[str, Any]]) -> None:
        rows += [row | {"sample": 1, "response": "the second"} for row in rows]

    change(project / "data/respond/curated.parquet", RESPONSE, twice)
    html = written(project)
    assert "Each gave 2 answers to a prompt; the first is shown." in Seen(html).words
    assert "the second" not in html


def test_a_prompt_without_an_answer_says_so(project: Path) -> None:
    change(project / "data/respond_opponent/bulk.parquet", RESPONSE, lambda rows: rows.pop(0))
    assert Seen(written(project)).words.count("gave no answer") == 1


def test_no_example_is_shown_when_none_is_asked_for(project: Path) -> None:
    params = run_tables.PARAMS | {"report": {"n_examples": 0}}
    (project / "params.yaml").write_text(json.dumps(params))
    assert "Where was person" not in written(project)


def test_the_loss_table_holds_every_arm_the_judged_first(project: Path) -> None:
    written(project)
    loss = pl.read_csv(project / "metrics/report/loss.csv")
    assert loss.columns == ["arm", "step", "epoch", "loss"]
    assert loss["arm"].unique(maintain_order=True).to_list() == ["curated", "bulk"]
    assert loss["arm"].value_counts()["count"].max() <= 100
    assert loss.filter(arm="bulk")["step"].max() == 333


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("metrics/quality.json", None),
        ("metrics/score/pairwise.csv", None),
        ("metrics/score/pairwise.csv", "opponent,annotator\nbase,reference\n"),
        ("metrics/score/accuracy.csv", ""),
        ("metrics/score/accuracy.csv", "responder,measure,n,rate,low,high\ncurated,exact,many,0.5,0.4,0.6\n"),
        ("metrics/render/bulk.json", "{"),
        ("data/sft/bulk/loss.csv", None),
        ("data/judge/base.parquet", None),
        ("data/judge/base.parquet", "no parquet"),
    ],
)
def test_a_missing_or_broken_input_is_named(project: Path, path: str, text: str | None) -> None:
    (project / path).unlink()
    if text is not None:
        (project / path).write_text(text)
    with pytest.raises(InputError, match=path):
        report.main()
    assert not (project / "reports/report.html").exists()


def test_counts_that_do_not_add_up_are_refused(project: Path) -> None:
    sources = json.loads(json.dumps(run_tables.QUALITY["sources"]))
    sources["wikihow"]["n_in"] += 1
    write_json(project / "metrics/quality.json", {"sources": sources})
    with pytest.raises(InputError, match="rows of 'wikihow' must be dropped or kept"):
        report.main()


def test_an_unknown_arm_is_one_sentence_and_no_traceback(project: Path) -> None:
    params = run_tables.PARAMS | {"judge": {"arm": "nobody", "annotators": []}}
    (project / "params.yaml").write_text(json.dumps(params))
    with pytest.raises(LimaError, match=r"judge\.arm: must be a key of arms, got 'nobody'"):
        report.main()


def test_what_the_page_says_of_checkpoints_and_power_follows_the_run(project: Path) -> None:
    head, *rows = run_tables.SCORES["checkpoints"]
    cells = [row.split(",") for row in rows]
    by_pairs = [",".join([*row[:3], "", "", "", *row[6:8], "pairs", *row[9:]]) for row in cells]
    run_tables.write_scores(project, run_tables.SCORES | {"checkpoints": [head, *by_pairs]})
    (project / "params.yaml").write_text(json.dumps(run_tables.PARAMS | {"score": {"confidence": 0.99}}))
    words = Seen(written(project)).words
    assert "kept epoch 10, the earliest whose Bradley-Terry strength" in words
    assert "mean grade" not in words
    assert "were not graded" not in words
    assert "300 prompts with a fifth of ties show 8.8 points" in words


def test_an_unknown_key_of_an_arm_is_one_sentence(project: Path) -> None:
    arms = run_tables.PARAMS["arms"] | {"bulk": {"sample": {}, "sft": {}, "sfft": {}}}
    (project / "params.yaml").write_text(json.dumps(run_tables.PARAMS | {"arms": arms}))
    with pytest.raises(
        LimaError, match=r"params\.yaml: arms\.bulk\.sfft: unknown key, got \{\}; remove it \(known here: s"
    ):
        report.main()


def test_the_stage_imports_no_torch() -> None:
    code = "import sys, stages.report; sys.exit(any(m in sys.modules for m in ('torch', 'transformers', 'matplotlib')))"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])


# --- in a browser ----------------------------------------------------------------------------------------------------


class Served(http.server.SimpleHTTPRequestHandler):
    """A folder over HTTP; remembers what was asked for."""

    asked: list[str]

    def do_GET(self) -> None:
        type(self).asked.append(self.path)
        super().do_GET()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def served(project: Path) -> Iterator[tuple[str, list[str]]]:
    """The address of the project's folder, and the paths that were asked for there."""
    handler = type("Handler", (Served,), {"asked": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", handler.asked
        server.shutdown()


def probed(project: Path, script: str) -> Path:
    """A copy of the page that a script may examine: without its policy, and with the script at its end."""
    html = re.sub(r"<meta http-equiv[^>]*>", "", written(project))
    path = project / "reports/probe.html"
    path.write_text(html.replace("</body>", f"<script>{script}</script></body>"), encoding="utf-8")
    return path


def said(dom: str) -> Any:
    """What a probing script wrote into the title."""
    found = re.search(r"<title>(.*?)</title>", dom)
    assert found is not None
    return json.loads(unescape(found[1]))


@pytest.mark.slow
@needs_browser
def test_the_page_asks_for_nothing_even_if_markup_slipped_in(project: Path, served: tuple[str, list[str]]) -> None:
    address, asked = served
    poison(project)
    html = written(project)
    slipped = f'<img src="/leak.png"><script>fetch("/leak")</script><link rel="stylesheet" href="{address}/leak.css">'
    (project / "reports/slipped.html").write_text(html.replace("<main>", f"<main>{slipped}"))
    loaded(f"{address}/reports/report.html", project / "profile")
    loaded(f"{address}/reports/slipped.html", project / "profile")
    assert asked == ["/reports/report.html", "/reports/slipped.html"]


def numbers(*ids: int) -> list[str]:
    return [f"authored:test-{number:03}" for number in ids]


FILTERS = {
    "q=lute+41.": numbers(41),
    "q=nothing-like-it": [],
    "group=ask_reddit": numbers(*range(0, 60, 10)),
    "opponent=bulk&annotator=length&outcome=lose": numbers(*range(19, 60, 3)),
    "annotator=reference&outcome=not_applicable": numbers(*range(0, 60, 10)),
    "opponent=nobody": numbers(*range(25)),  # a name that is not in the list is no filter
    "q=": numbers(*range(25)),
}

PROBE = """
const states = STATES, found = {}, columns = {};
const shown = () => Array.from(document.querySelectorAll(".card:not([hidden])"), (card) => card.dataset.id);
const next = () => {
  found[location.hash.slice(1)] = shown();
  columns[location.hash.slice(1)] = document.querySelectorAll(".card:not([hidden]) .answer:not([hidden])").length;
  if (states.length) location.hash = states.shift();
  else {
    document.getElementById("every").click();
    found.every = shown();
    document.title = JSON.stringify([found, columns]);
  }
};
addEventListener("hashchange", next);
next();
"""


@pytest.mark.slow
@needs_browser
def test_the_address_filters_the_answers(project: Path) -> None:
    first, *others = FILTERS
    page = probed(project, PROBE.replace("STATES", json.dumps(others)))
    found, columns = said(loaded(f"{page.as_uri()}#{first}", project / "profile"))
    assert found.pop("every") == numbers(*range(60))
    assert found == FILTERS
    assert columns["q=lute+41."] == 3  # the judged arm and both opponents
    state = "opponent=bulk&annotator=length&outcome=lose"
    assert columns[state] == 2 * len(FILTERS[state])  # the one opponent that was asked for


@pytest.mark.slow
@needs_browser
def test_the_page_is_no_wider_than_the_screen(project: Path) -> None:
    def long_words(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            row["response"] = "word" * 200

    change(project / "data/respond/curated.parquet", RESPONSE, long_words)
    page = escape(probed(project, "").read_text(encoding="utf-8"))
    frames = "".join(f'<iframe width="{width}" height="900" srcdoc="{page}"></iframe>' for width in (400, 1280))
    script = """
      const cut = (element) => element.scrollWidth > element.clientWidth + 1;
      const measure = (frame) => {
        const root = frame.contentDocument.documentElement;
        const parts = Array.from(root.querySelectorAll("header, section, p, .card, .answer, .example, .text, .rows"));
        return [frame.clientWidth, root.clientWidth, root.scrollWidth, parts.filter(cut).map((part) => part.className)];
      };
      onload = () => document.title = JSON.stringify(Array.from(document.querySelectorAll("iframe"), measure));
    """
    (project / "frames.html").write_text(f"<title></title>{frames}<script>{script}</script>", encoding="utf-8")
    measured = said(loaded((project / "frames.html").as_uri(), project / "profile"))
    assert [width for width, *_ in measured] == [400, 1280]
    for width, inside, needed, cut in measured:
        assert needed == inside > width - 20  # a scroll bar for the height may take a little
        assert cut == []


def test_escaping_is_what_python_calls_escaping() -> None:
    page = report.Page("{{ text }}", "", "")
    plain = HOSTILE.replace("\u202e", "⟨U+202E⟩").replace("\x00", "⟨U+0000⟩").replace("\u2066", "⟨U+2066⟩")
    assert report.render(page, {"text": HOSTILE}) == escape(plain).replace("&quot;", "&#34;").replace("&#x27;", "&#39;")
