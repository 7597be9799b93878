import json

import polars as pl
import pytest

from stages.common.errors import InputError
from stages.common.files import read_table
from stages.core.chat import Rendered
from stages.render import Params, check_supervision, main, run
from stages.runtime.tokenizer import load_tokenizer
from stages.schema import RENDERED
from tests.tiny import CHAT, examples, make_base, write_examples, write_params

PAIRS = [("Hi", "Yo"), ("What is <b>bold</b>?", "A tag & no more"), ("Long", "x" * 100)]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def tokenizer(base):
    return load_tokenizer(base).with_eot("<|eot|>")


def test_ids_and_masks_are_spelled_out(tokenizer):
    rendered = run(examples(PAIRS[:1]), tokenizer, Params(**CHAT), arm="curated").rendered
    eot = tokenizer.eot_id
    assert rendered["input_ids"].to_list() == [[1, *tokenizer.encode("Hi"), eot, *tokenizer.encode("Yo"), eot]]
    assert rendered["loss_mask"].to_list() == [[0, 0, 0, 0, 1, 1, 1]]


def test_trimmed_examples_are_counted_by_source_and_group_and_lose_their_eot(tokenizer):
    frame = examples(PAIRS).with_columns(source=pl.Series(["b", "a", "a"]), group=pl.Series(["g", "g", "h"]))
    result = run(frame, tokenizer, Params(**CHAT), arm="curated")
    assert result.metrics["n_trimmed"] == 1
    by = {key: {name: part["n_trimmed"] for name, part in result.metrics[key].items()} for key in ("sources", "groups")}
    assert by == {"sources": {"a": 1, "b": 0}, "groups": {"g": 0, "h": 1}}
    assert list(result.metrics["sources"]) == ["a", "b"]
    assert result.metrics["sources"]["a"]["n_trimmed_tokens"] == 1 + 4 + 1 + 100 + 1 - 64
    assert result.metrics["sources"]["b"] == result.metrics["sources"]["b"] | {"n": 1, "mean_response_tokens": 3}
    assert tokenizer.eot_id not in result.rendered["input_ids"].to_list()[2][6:]


def test_statistics_add_up(tokenizer):
    result = run(examples(PAIRS[:2]), tokenizer, Params(**CHAT), arm="curated")
    assert result.metrics["n_tokens"] == sum(map(len, result.rendered["input_ids"].to_list()))
    assert result.metrics["n_supervised_tokens"] == 3 + 16
    assert result.metrics["groups"]["authored"]["mean_response_tokens"] == (3 + 16) / 2


def test_a_prompt_that_fills_max_tokens_is_left_out_and_named(tokenizer):
    result = run(examples([("Hi", "Yo"), ("x" * 80, "y")]), tokenizer, Params(**CHAT), arm="curated")
    assert result.rendered["id"].to_list() == ["authored:000"]
    assert (result.metrics["n"], result.metrics["n_no_room"], result.metrics["no_room"]) == (1, 1, ["authored:001"])


def test_an_arm_with_nothing_to_learn_is_one_sentence(tokenizer):
    with pytest.raises(InputError, match="no example has something to learn"):
        run(examples([("x" * 80, "y")]), tokenizer, Params(**CHAT), arm="curated")


def test_a_dialogue_that_ends_with_the_user_has_no_supervised_eot_and_is_an_error(tokenizer):
    frame = examples([("Hi", "Yo")])
    rows = frame.to_dicts()
    rows[0]["messages"] = [{"role": "user", "content": "Hi"}]
    with pytest.raises(InputError, match="authored:000"):
        run(type(frame)(rows, schema=frame.schema), tokenizer, Params(**CHAT), arm="curated")


def test_a_dialogue_without_an_assistant_is_an_error_even_where_it_is_trimmed(tokenizer):
    rendered = Rendered([1, 70, 70], [0, 0, 0], 0, 5)
    with pytest.raises(InputError, match="authored:000: no token of it carries loss"):
        check_supervision(rendered, "authored:000", eot_id=tokenizer.eot_id)


def test_the_preview_escapes_text_and_marks_what_carries_loss(tokenizer):
    preview = run(examples(PAIRS), tokenizer, Params(**CHAT), arm="<arm>").preview
    assert "<b>bold" not in preview
    assert "&lt;b&gt;bold" in preview
    assert '<mark>A tag &amp; no more</mark><span class="end"><mark><code>&lt;|eot|&gt;</code></mark></span>' in preview
    assert '<code>&lt;s&gt;</code>Hi<span class="end"><code>&lt;|eot|&gt;</code></span><mark>Yo</mark>' in preview
    assert "authored, 64 tokens, 58 with loss, 43 trimmed and so no end of turn" in preview
    assert "<tr><th>authored</th><td>3</td><td>11</td><td>26</td><td>1</td><td>43</td></tr>" in preview
    assert "<arm>" not in preview


def test_the_stage_writes_table_preview_and_metrics(base, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    (tmp_path / "models/base").symlink_to(base)
    write_params(tmp_path, render=CHAT)
    write_examples(tmp_path / "data/sample/curated.parquet", PAIRS)
    main("curated")
    table = read_table(tmp_path / "data/render/curated.parquet", RENDERED)
    assert table["id"].to_list() == ["authored:000", "authored:001", "authored:002"]
    assert json.loads((tmp_path / "metrics/render/curated.json").read_text())["n"] == 3
    assert (tmp_path / "data/render/curated.html").read_text().startswith("<!doctype html>")


def test_lengths_are_by_role_whatever_carries_the_loss(tokenizer):
    groups = [
        run(examples(PAIRS[:1]), tokenizer, Params(**{**CHAT, "loss_on": on}), arm="a").metrics["groups"]["authored"]
        for on in ("responses", "all")
    ]
    assert groups[0] == groups[1]
    assert (groups[0]["mean_prompt_tokens"], groups[0]["mean_response_tokens"]) == (4, 3)
