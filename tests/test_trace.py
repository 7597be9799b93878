from pathlib import Path

import polars as pl
import pytest

from stages import trace
from stages.common.errors import InputError
from stages.common.files import empty_table, write_json, write_table
from stages.core.rows import Candidate, Prompt, turns
from stages.schema import CANDIDATE, DEDUP_DROPPED, EXAMPLE, LEFT_OUT, PROMPT, QUALITY_DROPPED

IDS = ("kept", "short", "copy", "bulk", "heldout")


def candidate(name):
    return Candidate(
        f"wiki:{name}",
        "wiki",
        "Travel",
        "wikihow",
        None,
        turns(f"How to {name}?", "1. Go."),
        url="http://w/x",
        author="Ann",
        license="CC0 1.0",
        created="2020-01-02",
    )


def put(path, schema, *rows):
    write_table(Path("data") / path, pl.DataFrame(list(rows), schema=schema, orient="row"), schema)


def examples(*names):
    return [candidate(name)[: len(EXAMPLE)] for name in names]


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project whose data side ran to the end."""
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(
        "sources: {wiki: {}, forum: {}}\n"
        "sample: {seed: 0, groups: {wikihow: {temperature: null, within: score, each_first: false}}, n_heldout: 1}\n"
        "arms:\n"
        "  curated: {sample: {pool: data/dedup/kept.parquet, quotas: {wikihow: 1}, strategy: lima}, sft: {}}\n"
        "  bulk: {sample: {pool: data/dedup/unfiltered.parquet, quotas: {all: 2}, strategy: random}, sft: {}}\n"
    )
    put("extract/wiki.parquet", CANDIDATE, *(candidate(name) for name in IDS))
    asked = [Prompt(f"wiki:{name}", None, "wiki", "ask", "d", turns("Why?")) for name in ("p1", "p2")]
    put("extract/wiki.prompts.parquet", PROMPT, *asked)
    put("prompts/dev.parquet", PROMPT, asked[0])
    write_table(Path("data/prompts/test.parquet"), empty_table(PROMPT), PROMPT)
    put("quality/kept.parquet", EXAMPLE, *examples("copy", "heldout", "kept"))
    put("quality/unfiltered.parquet", EXAMPLE, *examples("bulk", "kept", "short"))
    put(
        "quality/dropped.parquet",
        QUALITY_DROPPED,
        ("wiki:short", "wiki", "Travel", "wikihow", "length", "6", "1200"),
        ("wiki:bulk", "wiki", "Travel", "wikihow", "first_person", "I", None),
    )
    put("dedup/kept.parquet", EXAMPLE, *examples("heldout", "kept"))
    put("dedup/unfiltered.parquet", EXAMPLE, *examples("bulk", "kept", "short"))
    put(
        "dedup/dropped.parquet",
        DEDUP_DROPPED,
        ("wiki:copy", "wiki", "Travel", "wikihow", "near_duplicate", "wiki:kept", 0.9, None),
    )
    put("sample/curated.parquet", EXAMPLE, *examples("kept"))
    put("sample/bulk.parquet", EXAMPLE, *examples("bulk", "kept"))
    put("sample/curated.heldout.parquet", EXAMPLE, *examples("heldout"))
    write_table(Path("data/sample/bulk.heldout.parquet"), empty_table(EXAMPLE), EXAMPLE)
    write_json(Path("metrics/render/curated.json"), {"n": 1, "n_no_room": 0, "no_room": []})
    write_json(Path("metrics/render/bulk.json"), {"n": 1, "n_no_room": 1, "no_room": ["wiki:kept"]})


def told(capsys, row_id, *, with_text=False):
    trace.main(row_id, with_text=with_text)
    return capsys.readouterr().out.splitlines()


@pytest.mark.usefixtures("project")
def test_a_row_that_was_drawn_tells_its_whole_way(capsys):
    assert told(capsys, "wiki:kept", with_text=True) == [
        "wiki:kept",
        "source   wiki",
        "url      http://w/x",
        "author   Ann",
        "licence  CC0 1.0",
        "created  2020-01-02",
        "extract  a candidate of group wikihow, domain Travel, score unknown, prompt's score unknown",
        "quality  kept",
        "quality  in the unfiltered sample",
        "dedup    kept",
        "dedup    in the unfiltered sample",
        "sample   drawn by curated, bulk",
        "render   an example of curated; no room for a response, left out of bulk",
        "",
        "--- user",
        "How to kept?",
        "",
        "--- assistant",
        "1. Go.",
    ]


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "short",
            [
                "quality  dropped: rule length, value 6, limit 1200",
                "quality  in the unfiltered sample",
                "dedup    in the unfiltered sample",
                "sample   not drawn by curated: not in its pool, data/dedup/kept.parquet",
                "sample   not drawn by bulk: 2 of the 3 rows of the pool were, by strategy random",
            ],
        ),
        (
            "bulk",
            [
                "quality  dropped: rule first_person, value I, limit unknown",
                "quality  in the unfiltered sample",
                "dedup    in the unfiltered sample",
                "sample   drawn by bulk",
                "sample   not drawn by curated: not in its pool, data/dedup/kept.parquet",
                "render   an example of bulk",
            ],
        ),
        (
            "copy",
            [
                "quality  kept",
                "dedup    dropped: near_duplicate of wiki:kept, similarity 0.900",
                "sample   not drawn by curated: not in its pool, data/dedup/kept.parquet",
                "sample   not drawn by bulk: not in its pool, data/dedup/unfiltered.parquet",
            ],
        ),
        (
            "heldout",
            [
                "quality  kept",
                "dedup    kept",
                "sample   held out by curated",
                "sample   not drawn by bulk: not in its pool, data/dedup/unfiltered.parquet",
            ],
        ),
    ],
)
def test_each_verdict_has_its_reason(capsys, name, expected):
    assert told(capsys, f"wiki:{name}")[7:] == expected


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    ("quotas", "within", "expected"),
    [
        ("wikihow: 1", "score", "1 of the 4 rows of group wikihow were, 1 of the 3 of Travel, by votes, in which it is "
         "number 2"),
        ("all: 1", "score", "1 of the 4 rows of the pool were, in an order by chance, in which it is number"),
        ("wikihow: 1", "random", "1 of the 3 of Travel, in an order by chance, in which it is number"),
        ("stories: 1", "score", "no quota for group wikihow"),
    ],
)  # fmt: skip
def test_what_was_not_drawn_has_its_place(capsys, quotas, within, expected):
    votes = {"kept": 9, "next": 7, "last": 7, "else": 8}
    rows = [candidate(name)._replace(prompt_score=n, score=1) for name, n in votes.items()]
    rows = [row._replace(domain="Food") if row.id == "wiki:else" else row for row in rows]
    rows = [row._replace(score=2) if row.id == "wiki:next" else row for row in rows]
    put("extract/wiki.parquet", CANDIDATE, *rows)
    put("dedup/kept.parquet", EXAMPLE, *(row[: len(EXAMPLE)] for row in rows))
    text = Path("params.yaml").read_text().replace("within: score", f"within: {within}")
    Path("params.yaml").write_text(text.replace("quotas: {wikihow: 1}", f"quotas: {{{quotas}}}"))
    (line,) = (line for line in told(capsys, "wiki:next") if line.startswith("sample   not drawn by curated: "))
    assert expected in line


@pytest.mark.usefixtures("project")
def test_what_extract_left_out_is_told_by_its_number():
    put("extract/wiki.left_out.parquet", LEFT_OUT, ("wiki", "without text", 1200), ("wiki", "that are no how-to", 3))
    with pytest.raises(InputError, match=r"has no trace but its number: 3 that are no how-to, 1,200 without text$"):
        trace.main("wiki:gone", with_text=False)


@pytest.mark.usefixtures("project")
def test_prompts_say_whether_they_were_drawn(capsys):
    assert told(capsys, "wiki:p1")[-2:] == ["extract  a prompt without a response", "prompts  drawn: a dev prompt"]
    assert told(capsys, "wiki:p2")[-1] == "prompts  not drawn"


@pytest.mark.usefixtures("project")
def test_stages_that_have_not_run_say_so(capsys):
    for path in ("quality/dropped", "dedup/kept", "sample/bulk", "prompts/test"):
        Path(f"data/{path}.parquet").unlink()
    Path("metrics/render/curated.json").unlink()
    assert told(capsys, "wiki:kept")[7:] == [
        "quality  has not run",
        "dedup    has not run",
        "sample   drawn by curated; has not run for bulk",
        "render   has not run for curated",
    ]
    assert told(capsys, "wiki:p1")[-1] == "prompts  has not run"


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    ("row_id", "message"),
    [
        ("wiki:kep", r"wiki:kep: must be the id of a row, got none of 7; close to it: wiki:kept"),
        ("wik:kept", r"must begin with a source and a colon, got 'wik'; did you mean wiki:\.\.\.\?"),
        ("kept", r"got 'kept'; sources are wiki, forum"),
        ("forum:1", r"forum:1: extract has not run for forum; `dvc repro extract@forum` makes its rows"),
    ],
)
def test_an_unknown_id_is_one_sentence_with_a_hint(row_id, message):
    with pytest.raises(InputError, match=message):
        trace.main(row_id, with_text=False)


@pytest.mark.usefixtures("project")
def test_a_damaged_table_is_one_sentence():
    Path("data/dedup/kept.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(InputError, match=r"data/dedup/kept\.parquet: not readable parquet"):
        trace.main("wiki:kept", with_text=False)
