"""report: write one HTML file that shows what a run did and what came of it.

Reads the metrics of quality, dedup, sample, render and score, data/sample/<arm>.parquet (EXAMPLE),
data/sft/<arm>/loss.csv, data/prompts/{dev,test}.parquet (PROMPT), data/respond/<arm>.parquet and
data/respond_opponent/<opponent>.parquet (RESPONSE), data/judge/<opponent>.parquet (VERDICT).
Writes reports/report.html and metrics/report/loss.csv (arm,step,epoch,loss: the training loss of every arm, thinned,
for `dvc plots`).

The tables and figures follow the paper's: Table 1 (s2), Figures 1 to 3 (s4), Figure 9 (Appendix B). The page loads
nothing: its policy allows only the style and the script that stand in it, by their hashes, and all text from data is
escaped. *Ours*: accuracy on prompts with known answers, and what the headline says of it.
"""

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from pydantic import Field

from stages.common.errors import InputError
from stages.common.files import first_line, read_json, read_table, write_csv, write_text
from stages.common.main import run_stage
from stages.common.params import check_named, load_params
from stages.common.section import Named, Section
from stages.core import figures, paper
from stages.core.agreement_tables import AGREEMENT, AGREEMENT_GROUPS
from stages.core.answers import cards
from stages.core.arms import Arms
from stages.core.funnel import flows, measures, reasons, table_1
from stages.core.headline import THIN, Cast, bounds, headline, percent
from stages.core.score_tables import (
    ACCURACY,
    BRADLEY_TERRY,
    CHECKPOINTS,
    DIFFERENCE,
    GRADES,
    PAIRWISE,
    POSITION,
    SHARES,
    WIN_RATE,
)
from stages.schema import EXAMPLE, PROMPT, RESPONSE, VERDICT

UNTUNED = Path("models/base")
LOSS: dict[str, pl.DataType] = {
    "step": pl.Int64(),
    "epoch": pl.Float64(),
    "loss": pl.Float64(),
    "lr": pl.Float64(),
    "n_supervised_tokens": pl.Int64(),
}
SCORES = {
    "pairwise": PAIRWISE,
    "accuracy": ACCURACY,
    "difference": DIFFERENCE,
    "win_rate": WIN_RATE,
    "bradley_terry": BRADLEY_TERRY,
    "position": POSITION,
    "agreement": AGREEMENT,
    "agreement_groups": AGREEMENT_GROUPS,
    "checkpoints": CHECKPOINTS,
    "grades": GRADES,
    "shares": SHARES,
}


class Params(Section):
    """Section `report`."""

    n_examples: int = Field(ge=0)  # training examples shown for each group


class Judge(Section, extra="ignore"):
    """What the report reads of section `judge`."""

    arm: str
    annotators: list[str]


class Score(Section, extra="ignore"):
    """What the report reads of section `score`."""

    confidence: float = Field(gt=0, lt=1)


class Inputs(NamedTuple):
    """All that the report tells; maps are by arm, by responder or by opponent."""

    quality: Mapping[str, Any]
    dedup: Mapping[str, Any]
    samples: Mapping[str, pl.DataFrame]  # EXAMPLE by arm: what it was trained on, without rows that had no room
    draws: Mapping[str, Mapping[str, Any]]  # what `sample` measured, by arm
    renders: Mapping[str, Mapping[str, Any]]  # token statistics by arm
    losses: Mapping[str, pl.DataFrame]  # LOSS by arm
    dev: pl.DataFrame  # PROMPT
    test: pl.DataFrame  # PROMPT
    responses: Mapping[str, pl.DataFrame]  # RESPONSE by responder: the judged arm and the opponents
    verdicts: Mapping[str, pl.DataFrame]  # VERDICT by opponent
    summary: Mapping[str, Any]  # metrics/score.json
    scores: Mapping[str, pl.DataFrame]  # SCORES by name


class Page(NamedTuple):
    """The page without its content."""

    html: str
    css: str
    js: str


class Report(NamedTuple):
    """What the stage writes."""

    html: str
    loss: pl.DataFrame  # arm, step, epoch, loss


def run(inputs: Inputs, params: Params, *, cast: Cast, page: Page) -> Report:
    """Write the page and the thinned loss curves; neither depends on a clock."""
    loss = figures.thin_losses({arm: inputs.losses[arm] for arm in cast.arms})
    content = {"cast": cast, "paper": paper, "outcomes": figures.OUTCOMES, "colours": figures.colours(cast)}
    content |= _results(inputs, cast) | _training(inputs, params, cast, loss) | _answers(inputs, cast)
    return Report(render(page, content), loss)


def render(page: Page, content: Mapping[str, Any]) -> str:
    """Fill the page; its policy lets in this style and this script only."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=visible
    )
    environment.filters |= {"percent": percent, "web_address": web_address}
    environment.globals |= {"bounds": bounds, "THIN": THIN}
    return environment.from_string(page.html).render(
        **content,
        css=Markup(page.css),  # noqa: S704 - ours, not data
        js=Markup(page.js),  # noqa: S704 - ours, not data
        css_hash=policy_hash(page.css),
        js_hash=policy_hash(page.js),
    )


_HIDDEN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufeff]")


def visible(value: object) -> object:
    r"""Show control characters, and those that turn the reading direction of what follows, by their code points.

    >>> visible("safe\u202egnp.exe")
    'safe⟨U+202E⟩gnp.exe'
    """
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return _HIDDEN.sub(lambda match: f"⟨U+{ord(match[0]):04X}⟩", value)


def web_address(url: str | None) -> str:
    """A URL as text if it is one of the web; otherwise say so.

    >>> web_address("javascript:alert(1)")
    'not a web address'
    """
    if url is None:
        return "address unknown"
    return url if re.fullmatch(r"https?://\S+", url) else "not a web address"


def policy_hash(text: str) -> str:
    """How a content security policy names an inline style or script (CSP level 3, hash source)."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _results(inputs: Inputs, cast: Cast) -> dict[str, Any]:
    """What came of the run: headline, accuracy, preferences, agreement, grades."""
    scores = inputs.scores
    told = {name: scores[name] for name in ("accuracy", "difference", "pairwise", "grades")}
    return {
        "headline": headline(cast, **told),
        "key_figures": figures.key_figures(cast, scores["accuracy"]),
        "accuracy": list(figures.accuracy(scores["accuracy"], cast)),
        "differences": figures.differences(scores["difference"], cast),
        "pairwise": list(figures.pairwise(scores["pairwise"], cast, counts=inputs.summary["pairwise"])),
        "paper_pairwise": list(figures.paper_pairwise()),
        "win_rates": list(figures.win_rates(scores["win_rate"], cast)),
        "strengths": list(figures.strengths(scores["bradley_terry"], cast)),
        "position": list(scores["position"].iter_rows(named=True)),
        "power": figures.power(confidence=cast.confidence),
        "agreement": list(figures.agreement(scores["agreement_groups"], scores["agreement"])),
        "grades": list(figures.grades(scores["grades"], scores["shares"], cast)),
    }


def _training(inputs: Inputs, params: Params, cast: Cast, loss: pl.DataFrame) -> dict[str, Any]:
    """How the models were made: the funnel, Table 1, curves, examples."""
    quality, dedup = inputs.quality["sources"], inputs.dedup["sources"]
    return {
        "flows": [(flow, figures.flow_bar(flow)) for flow in flows(quality, dedup, inputs.samples)],
        "reasons": reasons(quality, dedup),
        "left_out": inputs.quality.get("left_out", {}),
        "no_room": {arm: inputs.renders[arm]["n_no_room"] for arm in cast.arms},
        "table_1": table_1(inputs.renders),
        "measures": measures(inputs.draws),
        "prompt_groups": paper.beside("dev", _by_group(inputs.dev)) + paper.beside("test", _by_group(inputs.test)),
        "loss": figures.loss_chart(loss, cast),
        "checkpoints": list(figures.checkpoints(inputs.scores["checkpoints"], cast)),
        "examples": {arm: figures.spaced_examples(inputs.samples[arm], params.n_examples) for arm in cast.arms},
    }


def _answers(inputs: Inputs, cast: Cast) -> dict[str, Any]:
    """Every test prompt with its answers."""
    n_samples = [frame["sample"].n_unique() for frame in inputs.responses.values()]
    return {
        "cards": cards(
            inputs.test,
            judged=cast.judged,
            responses=inputs.responses,
            verdicts=inputs.verdicts,
            annotators=cast.annotators,
        ),
        "groups": inputs.test["group"].unique().sort().to_list(),
        "n_samples": max(n_samples),
    }


def _by_group(prompts: pl.DataFrame) -> dict[str, int]:
    return dict(prompts["group"].value_counts().sort("group").iter_rows())


def main() -> None:
    """Read everything, write the page."""
    params = load_params("report", Params)
    judge = load_params("judge", Judge)
    arms = load_params("arms", Arms).names
    opponents = load_params("opponents", Named).model_extra or {}
    check_named(judge.arm, "arms", where="judge.arm")
    inputs = _read(arms, list(opponents), judged=judge.arm)
    cast = Cast(
        judged=judge.arm,
        arms=tuple(sorted(arms, key=lambda name: name != judge.arm)),
        opponents=tuple(opponents),
        untuned=tuple(name for name, opponent in opponents.items() if is_untuned(opponent)),
        n_examples={arm: metrics["n"] for arm, metrics in inputs.renders.items()},
        annotators=tuple(judge.annotators),
        confidence=load_params("score", Score).confidence,
    )
    result = run(inputs, params, cast=cast, page=read_page())
    write_text(Path("reports/report.html"), result.html)
    write_csv(Path("metrics/report/loss.csv"), result.loss)


def is_untuned(opponent: Mapping[str, Any]) -> bool:
    """Whether an opponent is the base model as it is, without tuning or in-context examples."""
    return opponent["kind"] == "model" and Path(opponent["path"]) == UNTUNED


def read_page() -> Page:
    """Read the page's three parts."""
    folder = Path(__file__).parent / "templates"
    return Page(*((folder / name).read_text(encoding="utf-8") for name in ("report.html", "report.css", "report.js")))


def read_csv(path: Path, columns: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """Read a table with these columns among others; empty cells are null.

    Raises:
        InputError: the file is missing, not CSV, or lacks a column.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; `dvc repro` makes it")
    try:
        return pl.read_csv(path, schema_overrides=dict(columns)).select(*columns)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError(
            f"{path}: not a table of {', '.join(columns)} ({first_line(error)}); `dvc repro` mends it"
        ) from None


def _read(arms: Sequence[str], opponents: Sequence[str], *, judged: str) -> Inputs:
    answered = {judged: Path(f"data/respond/{judged}.parquet")}
    answered |= {name: Path(f"data/respond_opponent/{name}.parquet") for name in opponents}
    renders = {arm: read_json(Path(f"metrics/render/{arm}.json")) for arm in arms}
    drawn = {arm: read_table(Path(f"data/sample/{arm}.parquet"), EXAMPLE) for arm in arms}
    return Inputs(
        quality=read_json(Path("metrics/quality.json")),
        dedup=read_json(Path("metrics/dedup.json")),
        samples={arm: rows.filter(~pl.col("id").is_in(renders[arm]["no_room"])) for arm, rows in drawn.items()},
        draws={arm: read_json(Path(f"metrics/sample/{arm}.json")) for arm in arms},
        renders=renders,
        losses={arm: read_csv(Path(f"data/sft/{arm}/loss.csv"), LOSS) for arm in arms},
        dev=read_table(Path("data/prompts/dev.parquet"), PROMPT),
        test=read_table(Path("data/prompts/test.parquet"), PROMPT),
        responses={name: read_table(path, RESPONSE) for name, path in answered.items()},
        verdicts={name: read_table(Path(f"data/judge/{name}.parquet"), VERDICT) for name in opponents},
        summary=read_json(Path("metrics/score.json")),
        scores={name: read_csv(Path(f"metrics/score/{name}.csv"), columns) for name, columns in SCORES.items()},
    )


if __name__ == "__main__":
    run_stage(main)
