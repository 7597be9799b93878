from collections import Counter
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages import prompts
from stages.common.errors import InputError, ParamsError
from stages.common.files import read_table, write_table
from stages.core.rows import Prompt, turns
from stages.core.words import normalise
from stages.prompts import Params
from stages.schema import PROMPT


def prompt(id_, text=None, *, split=None, group="ask", **more):
    return Prompt(f"s:{id_}", split, "s", group, "d", turns(text or f"Question {id_}?"), **more)


def table(*rows):
    return pl.DataFrame(rows, schema=PROMPT, orient="row")


def run(sources, params):
    return prompts.run({name: frame.lazy() for name, frame in sources.items()}, params)


def draw(*rows, seed=0, dev=None, test=None):
    params = Params(seed=seed, dev=dev or {"ask": 0}, test=test or {"ask": 0})
    splits = run({"s": table(*rows)}, params)
    return splits.dev["id"].to_list(), splits.test["id"].to_list()


def test_prompts_with_a_split_stay_in_it():
    rows = [prompt(f"d{i}", split="dev", group="own") for i in range(5)]
    rows += [prompt(f"t{i}", split="test", group="own") for i in range(5)]
    dev, test = draw(*rows, dev={"own": 5}, test={"own": 5})
    assert dev == [f"s:d{i}" for i in range(5)]
    assert test == [f"s:t{i}" for i in range(5)]
    with pytest.raises(ParamsError, match=r"prompts\.dev\.own: must be at most 5, .* got 6; lower it or add a source"):
        draw(*rows, dev={"own": 6}, test={"own": 4})


def test_prompts_without_a_split_go_by_score_then_id_and_test_comes_first():
    rows = [prompt("a", score=3), prompt("b", score=9), prompt("c", score=5), prompt("d", score=5), prompt("e")]
    assert draw(*rows, dev={"ask": 2}, test={"ask": 2}) == (["s:a", "s:d"], ["s:b", "s:c"])
    assert draw(*rows, dev={"ask": 3}, test={"ask": 2})[0] == ["s:a", "s:d", "s:e"]


def test_prompts_over_18_are_never_drawn():
    rows = [prompt("a", score=9, over_18=True), prompt("b", score=1, over_18=False), prompt("c", score=0)]
    assert draw(*rows, test={"ask": 2})[1] == ["s:b", "s:c"]
    with pytest.raises(ParamsError, match=r"prompts\.test\.ask: must be at most 2"):
        draw(*rows, test={"ask": 3})


def test_the_same_words_are_drawn_once_over_both_splits():
    rows = [
        prompt("a", "What now?", score=9),
        prompt("b", "what NOW", score=8),
        prompt("c", "Why?", score=7),
        prompt("d", "WHY", split="dev", group="own"),
        prompt("e", "Else", split="dev", group="own"),
    ]
    assert draw(*rows, dev={"own": 1}, test={"ask": 2}) == (["s:e"], ["s:a", "s:c"])
    with pytest.raises(ParamsError, match=r"prompts\.dev\.own: must be at most 1"):
        draw(*rows, dev={"own": 2}, test={"ask": 2})


def test_prompts_without_words_differ_by_their_text():
    assert draw(prompt("a", "🙂"), prompt("b", "🙃"), prompt("c", "🙂"), test={"ask": 2})[1] == ["s:a", "s:b"]


def test_the_draw_is_seeded_and_does_not_depend_on_the_order_of_sources():
    rows = [prompt(f"t{i:02}", split="test", group="own") for i in range(40)]
    params = Params(seed=3, dev={"own": 0}, test={"own": 10})
    first = run({"a": table(*rows[:20]), "b": table(*rows[20:])}, params).test
    assert first.equals(run({"b": table(*rows[20:]), "a": table(*rows[:20])}, params).test)
    assert first["id"].is_sorted()
    assert not first.equals(run({"a": table(*rows)}, Params(seed=4, dev={"own": 0}, test={"own": 10})).test)


def test_behind_however_many_that_repeat_others_are_found():
    rows = [prompt(f"a{i:04d}", "Again?", score=9) for i in range(700)]
    rows += [prompt("b", "Why?", score=2), prompt("c", "Who?", score=1)]
    assert draw(*rows, dev={"ask": 1}, test={"ask": 2}) == (["s:c"], ["s:a0000", "s:b"])
    with pytest.raises(ParamsError, match=r"prompts\.test\.ask: must be at most 3"):
        draw(*rows, test={"ask": 4})


def test_the_split_is_filled_and_the_rest_of_the_row_is_kept():
    row = prompt("a", score=4, url="u", references=["x"])
    drawn = run({"s": table(row)}, Params(seed=0, dev={"ask": 0}, test={"ask": 1})).test
    assert drawn.row(0) == tuple(row._replace(split="test"))
    assert dict(drawn.schema) == PROMPT


def test_an_unknown_group_names_the_known_ones():
    with pytest.raises(ParamsError, match=r"prompts\.test\.quora: must be at most 0.*groups with prompts: ask"):
        draw(prompt("a"), test={"quora": 1})
    with pytest.raises(ParamsError, match=r"groups with prompts: none"):
        draw(test={"quora": 1})


ROWS = st.builds(
    prompt,
    st.uuids().map(str),
    st.sampled_from(["a", "A!", "b", "c d", "c  D?", "e", "f"]),
    split=st.sampled_from([None, "dev", "test"]),
    score=st.none() | st.integers(0, 3),
    over_18=st.sampled_from([None, True, False]),
)


@settings(deadline=None)
@given(st.lists(ROWS, max_size=12), st.integers(0, 3), st.integers(0, 3), st.integers(0, 9))
def test_whatever_the_pool_the_draw_keeps_its_rules_or_refuses(rows, n_dev, n_test, seed):
    try:
        dev, test = run({"s": table(*rows)}, Params(seed=seed, dev={"ask": n_dev}, test={"ask": n_test}))
    except ParamsError:
        return
    assert (dev.height, test.height) == (n_dev, n_test)
    by_id = {row.id: row for row in rows}
    drawn = [(split, by_id[id_]) for split, frame in (("dev", dev), ("test", test)) for id_ in frame["id"]]
    assert all(row.split in (None, split) and not row.over_18 for split, row in drawn)
    assert max(Counter(normalise(row.messages[0]["content"]) for _, row in drawn).values(), default=1) == 1


def test_main_reads_exactly_the_sources_of_the_parameters(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(
        "sources: {a: {format: reddit, origin: x}, b: {format: reddit, origin: x}}\n"
        "prompts: {seed: 0, dev: {ask: 1}, test: {ask: 1}}\n"
    )
    write_table(Path("data/extract/a.prompts.parquet"), table(prompt("a", score=2)), PROMPT)
    write_table(Path("data/extract/c.prompts.parquet"), table(prompt("c", score=9)), PROMPT)
    with pytest.raises(InputError, match=r"data/extract/b\.prompts\.parquet: no such file"):
        prompts.main()
    write_table(Path("data/extract/b.prompts.parquet"), table(prompt("b", score=1)), PROMPT)
    prompts.main()
    assert read_table(Path("data/prompts/test.parquet"), PROMPT)["id"].to_list() == ["s:a"]
    assert read_table(Path("data/prompts/dev.parquet"), PROMPT)["id"].to_list() == ["s:b"]
