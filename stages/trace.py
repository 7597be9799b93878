"""trace: print the way of one row through the pipeline.

Reads whatever exists of data/extract/, data/quality/, data/dedup/, data/sample/, metrics/render/ and data/prompts/.
Writes nothing; prints where the row is from, under which licence, what each stage decided about it and why, which
arms drew it and why others did not, and which were trained on it. A stage that has not run yet says so. What `extract`
leaves out is counted by reason and has no trace.

    python -m stages.trace stack_exchange:beer.stackexchange.com/1 --text

LIMA does not publish this; it is ours.
"""

import argparse
import bisect
import difflib
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
from pydantic import ConfigDict

from stages.common.errors import InputError
from stages.common.files import first_line, read_json, read_table
from stages.common.main import run_command
from stages.common.params import load_params
from stages.common.section import Named, Section
from stages.core.arms import Arms
from stages.core.rows import listed
from stages.core.strata import ALL, GroupDraw
from stages.core.undrawn import ArmSample, quota_of, why_undrawn
from stages.schema import LEFT_OUT

Row = dict[str, Any]

_LOOKED_AT = ("id", "group", "domain", "score", "prompt_score")  # by `lima`, of a row
_NEIGHBOURS = 200  # ids on each side, in sorted order, that are compared with an unknown one


class _Sample(Section):
    """What is read of section `sample`."""

    model_config = ConfigDict(extra="ignore")

    seed: int
    groups: dict[str, GroupDraw]


class Traces(NamedTuple):
    """The rows of one id in every table; None where the table does not exist yet."""

    extract: Sequence[Row] | None
    extract_prompts: Sequence[Row] | None
    quality: Mapping[str, Sequence[Row] | None]  # kept, unfiltered, dropped
    dedup: Mapping[str, Sequence[Row] | None]
    samples: Mapping[str, Sequence[Row] | None]  # by arm
    heldout: Mapping[str, Sequence[Row] | None]
    no_room: Mapping[str, bool | None]  # by arm: whether `render` left it out, for want of room for a response
    prompts: Mapping[str, Sequence[Row] | None]  # by split
    undrawn: Mapping[str, str]  # by arm that has been drawn without it: why


def run(traces: Traces, *, with_text: bool) -> list[str]:
    """Tell the way of one row.

    Args:
        traces: what each table says of it.
        with_text: add the messages.

    Returns:
        Lines; none if no table knows the row.
    """
    row = next(iter([*(traces.extract or ()), *(traces.extract_prompts or ())]), None)
    if row is None:
        return []
    is_prompt = not traces.extract
    lines = [row["id"], *_origin(row)]
    if is_prompt:
        lines += [_line("extract", "a prompt without a response"), _line("prompts", _prompt_verdict(traces.prompts))]
    else:
        lines += [
            _line(
                "extract",
                f"a candidate of group {row['group']}, domain {row['domain']}, "
                f"score {_shown(row['score'])}, prompt's score {_shown(row['prompt_score'])}",
            ),
            *_verdicts("quality", traces.quality, _quality_reason),
            *_verdicts("dedup", traces.dedup, _dedup_reason),
            *(_line("sample", text) for text in _arms(traces)),
            *_rendered(traces),
        ]
    if with_text:
        final = next((r for rows in traces.samples.values() for r in rows or ()), row)
        lines += [text for turn in final["messages"] for text in ("", f"--- {turn['role']}", turn["content"])]
    return lines


def main(row_id: str, *, with_text: bool) -> None:
    """Trace one id."""
    sources, arms = load_params("sources", Named).names, load_params("arms", Arms).names
    source = row_id.partition(":")[0]
    if source not in sources:
        close = difflib.get_close_matches(source, sources, n=1)
        hint = f"did you mean {close[0]}:...?" if close else f"sources are {', '.join(sources)}"
        raise InputError(f"{row_id}: must begin with a source and a colon, got {source!r}; {hint}")
    lines = run(_read(row_id, source, arms), with_text=with_text)
    if not lines:
        raise InputError(_unknown(row_id, source))
    print("\n".join(lines))


def _origin(row: Row) -> list[str]:
    names = {"source": "source", "url": "url", "author": "author", "license": "licence", "created": "created"}
    return [_line(label, _shown(row[name])) for name, label in names.items()]


def _prompt_verdict(splits: Mapping[str, Sequence[Row] | None]) -> str:
    if any(rows is None for rows in splits.values()):
        return "has not run"
    drawn = [split for split, rows in splits.items() if rows]
    return f"drawn: a {drawn[0]} prompt" if drawn else "not drawn"


def _verdicts(stage: str, tables: Mapping[str, Sequence[Row] | None], reason: Callable[[Row], str]) -> list[str]:
    """Tell which of a stage's pools hold the row, and why it was dropped where it was."""
    if any(rows is None for rows in tables.values()):
        return [_line(stage, "has not run")]
    pools = [name for name in ("kept", "unfiltered") if tables[name]]
    dropped = [f"dropped: {reason(row)}" for row in tables["dropped"] or ()]
    held = [{"kept": "kept", "unfiltered": "in the unfiltered sample"}[name] for name in pools]
    return [_line(stage, text) for text in [*dropped, *held] or ["not among its rows"]]


def _quality_reason(row: Row) -> str:
    return f"rule {row['rule']}, value {_shown(row['value'])}, limit {_shown(row['limit'])}"


def _dedup_reason(row: Row) -> str:
    similarity = "" if row["similarity"] is None else f", similarity {row['similarity']:.3f}"
    span = f', shared: "{row["span"]}"' if row["span"] else ""
    return f"{row['rule']} of {row['partner_id']}{similarity}{span}"


def _arms(traces: Traces) -> list[str]:
    drawn = [arm for arm, rows in traces.samples.items() if rows]
    heldout = [arm for arm, rows in traces.heldout.items() if rows]
    missing = [arm for arm, rows in traces.samples.items() if rows is None]
    parts = [f"drawn by {', '.join(drawn)}"] if drawn else []
    parts += [f"held out by {', '.join(heldout)}"] if heldout else []
    parts += [f"has not run for {', '.join(missing)}"] if missing else []
    told = ["; ".join(parts)] if parts else []
    return [*told, *(f"not drawn by {arm}: {why}" for arm, why in traces.undrawn.items())]


def _rendered(traces: Traces) -> list[str]:
    """Tell which of the arms that drew the row were trained on it; nothing if none drew it."""
    by: dict[bool | None, list[str]] = {}
    for arm, rows in traces.samples.items():
        if rows:
            by.setdefault(traces.no_room[arm], []).append(arm)
    told = {False: "an example of {}", True: "no room for a response, left out of {}", None: "has not run for {}"}
    texts = [text.format(", ".join(by[state])) for state, text in told.items() if state in by]
    return [_line("render", "; ".join(texts))] if texts else []


def _line(label: str, text: str) -> str:
    return f"{label:<9}{text}"


def _shown(value: object) -> str:
    return "unknown" if value is None else str(value)


def _read(row_id: str, source: str, arms: Sequence[str]) -> Traces:
    def find(path: str) -> list[Row] | None:
        return _find(Path("data") / path, row_id)

    pools = ("kept", "unfiltered", "dropped")
    samples = {arm: find(f"sample/{arm}.parquet") for arm in arms}
    heldout = {arm: find(f"sample/{arm}.heldout.parquet") for arm in arms}
    return Traces(
        extract=find(f"extract/{source}.parquet"),
        extract_prompts=find(f"extract/{source}.prompts.parquet"),
        quality={name: find(f"quality/{name}.parquet") for name in pools},
        dedup={name: find(f"dedup/{name}.parquet") for name in pools},
        samples=samples,
        heldout=heldout,
        no_room={arm: _no_room(Path(f"metrics/render/{arm}.json"), row_id) for arm in arms},
        prompts={split: find(f"prompts/{split}.parquet") for split in ("dev", "test")},
        undrawn={arm: _why_undrawn(row_id, arm) for arm in arms if samples[arm] == [] and not heldout[arm]},
    )


def _why_undrawn(row_id: str, name: str) -> str:
    """Say why an arm that has been drawn has not this row."""
    arm = load_params(f"arms.{name}.sample", ArmSample)
    path = Path(arm.pool)
    found = _find(path, row_id)
    if not found:
        return f"its pool {path} is not there" if found is None else f"not in its pool, {path}"
    quota = quota_of(found[0], arm)
    if quota is None:
        return f"no quota for group {found[0]['group']}"
    rows = pl.scan_parquet(path).select(_LOOKED_AT)
    pool = (rows if quota == ALL else rows.filter(pl.col("group") == quota)).sort("id").collect()
    drawn = pl.read_parquet(f"data/sample/{name}.parquet", columns=["id", "domain"])
    sample = load_params("sample", _Sample)
    return why_undrawn(
        found[0], pool, drawn.join(pool, on="id", how="semi"), arm, sample.groups.get(quota), seed=sample.seed
    )


def _find(path: Path, row_id: str) -> list[Row] | None:
    """Return the rows of one id, reading no more of the table than that takes; None if it is not there."""
    if not path.is_file():
        return None
    try:
        return pl.scan_parquet(path).filter(pl.col("id") == row_id).collect().to_dicts()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError(f"{path}: not readable parquet ({first_line(error)}); `dvc repro` makes it anew") from None


def _no_room(path: Path, row_id: str) -> bool | None:
    """Whether `render` left a row out; None if it has not run."""
    return row_id in read_json(path)["no_room"] if path.is_file() else None


def _unknown(row_id: str, source: str) -> str:
    """Return the sentence on an id that no table holds, with the ids most like it."""
    paths = [Path(f"data/extract/{source}{suffix}.parquet") for suffix in ("", ".prompts")]
    if not any(path.is_file() for path in paths):
        return f"{row_id}: extract has not run for {source}; `dvc repro extract@{source}` makes its rows"
    ids = sorted(id_ for path in paths if path.is_file() for id_ in pl.read_parquet(path, columns=["id"])["id"])
    at = bisect.bisect(ids, row_id)
    close = difflib.get_close_matches(row_id, ids[max(0, at - _NEIGHBOURS) : at + _NEIGHBOURS], n=3, cutoff=0.5)
    told = f"{row_id}: must be the id of a row, got none of {len(ids):,}; close to it: {', '.join(close) or 'none'}"
    path = Path(f"data/extract/{source}.left_out.parquet")
    left_out = dict(read_table(path, LEFT_OUT).select("reason", "n").iter_rows()) if path.is_file() else {}
    return f"{told}; what extract left out has no trace but its number: {listed(left_out)}" if left_out else told


def _parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m stages.trace", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("id", help="<source>:<native id>, as in every table")
    parser.add_argument("--text", action="store_true", help="print its messages as well")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    parsed = _parse()
    sys.exit(run_command(lambda: main(parsed.id, with_text=parsed.text)))
