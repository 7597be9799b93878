"""Votes in the shapes in which others publish them, a few records each."""

import gzip
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from stages import agreement
from stages.common.errors import InputError, ParamsError
from stages.core.intervals import Intervals
from stages.core.preferences import resolve
from stages.core.votes import about, combine, copies, majority, read_votes
from stages.runtime.vote_files import read_vote_file

INTERVALS = Intervals(seed=0, n_bootstrap=200, confidence=0.95)
ITEM = ("prompt_id", "sample", "a", "b", "annotator", "order", "preference")
Told = dict[str, str]


def rows(*records: dict[str, Any], columns: Told | None = None, meanings: Told | None = None) -> list[tuple]:
    return read_votes(records, name="file", columns=columns, meanings=meanings).frame.select(ITEM).rows()


def outcomes(*records: dict[str, Any]) -> list[str]:
    return resolve(read_votes(records, name="file").frame)["outcome"].to_list()


def test_mt_bench_has_turns_a_judge_a_row_and_ties_that_are_inconsistent() -> None:
    base = {
        "question_id": 81,
        "model_a": "vicuna",
        "model_b": "alpaca",
        "turn": 2,
        "conversation_a": [{"role": "user"}],
    }
    assert rows({**base, "winner": "model_a", "judge": "expert_3"}, {**base, "winner": "tie", "judge": "author_0"}) == [
        ("81", 2, "alpaca", "vicuna", "expert_3", "ba", "b"),
        ("81", 2, "alpaca", "vicuna", "author_0", "ba", "tie"),
    ]
    machine = {**base, "judge": ["gpt-4", "pair-v2"]}
    assert rows({**machine, "winner": "model_b"})[0][4:] == ("gpt-4 pair-v2", "ba", "a")
    assert outcomes({**machine, "winner": "tie (inconsistent)"}, {**machine, "turn": 1, "winner": "tie"}) == [
        "tie", "inconsistent"
    ]  # fmt: skip


def test_two_games_are_two_orders_and_an_error_is_no_tie() -> None:
    game = {"question_id": 1, "model_1": "a1", "model_2": "b1", "judge": ["gpt-4", "pair-v2"], "turn": 1}
    told = [
        {**game, "g1_winner": "model_1", "g2_winner": "model_1"},
        {**game, "question_id": 2, "g1_winner": "model_1", "g2_winner": "model_2"},
        {**game, "question_id": 3, "g1_winner": "error", "g2_winner": "model_2"},
        {**game, "question_id": 4, "g1_winner": "tie", "g2_winner": "tie"},
    ]
    assert outcomes(*told) == ["win", "inconsistent", "unscored", "tie"]


def test_arena_votes_are_words_or_flags() -> None:
    base = {"question_id": "q", "model_a": "x", "model_b": "y", "judge": "arena_user_7"}
    assert rows({**base, "winner": "tie (bothbad)"})[0][-1] == "tie"
    flags = {"id": 5, "model_a": "x", "model_b": "y", "prompt": "?", "response_a": "1", "response_b": "22"}
    wins = ({"winner_model_a": 1}, {"winner_model_b": 1}, {"winner_tie": 1}, {})
    zero = {"winner_model_a": 0, "winner_model_b": 0, "winner_tie": 0}
    read = read_votes([{**flags, "id": i, **zero, **win} for i, win in enumerate(wins)], name="file").frame
    assert read.select("annotator", "preference", "unscored_reason", "chars_a", "chars_b").rows() == [
        ("file", "a", None, 1, 2), ("file", "b", None, 1, 2), ("file", "tie", None, 1, 2),
        ("file", None, "failed", 1, 2),
    ]  # fmt: skip


def test_alpaca_eval_says_how_far_the_second_is_preferred() -> None:
    base = {"instruction": "Hi", "output_1": "abc", "generator_1": "z", "output_2": "ab", "generator_2": "m"}
    said = [{**base, "instruction": str(i), "preference": p} for i, p in enumerate([1, 1.25, 1.5, 2.0, 0, None])]
    read = read_votes(said, name="file").frame
    assert read.select("a", "preference", "value", "chars_a").rows() == [  # m is `a` by its name
        ("m", "b", 0.0, 2), ("m", "b", 0.25, 2), ("m", "tie", 0.5, 2), ("m", "a", 1.0, 2), ("m", "tie", 0.5, 2),
        ("m", None, None, 2),
    ]  # fmt: skip
    assert about(read, "z")["value"].to_list() == [1.0, 0.75, 0.5, 0.0, 0.5, None]
    assert about(read, "z")["order"].unique().to_list() == ["ab"]


def test_several_people_on_unnamed_answers_share_the_item_and_another_pair_is_another_item() -> None:
    base = {"instruction": "Add", "input": "1 2", "output_1": "3", "output_2": "4"}
    read = rows(
        {**base, "annotator_index": 0, "preference": 1},
        {**base, "annotator_index": 4, "preference": 2},
        {**base, "output_2": "5", "annotator_index": 4, "preference": 2},
    )
    assert read == [
        ("Add\n\n1 2", 0, "first", "second", "0", "ab", "a"),
        ("Add\n\n1 2", 0, "first", "second", "4", "ab", "b"),
        ("Add\n\n1 2", 1, "first", "second", "4", "ab", "b"),
    ]


def test_an_id_of_the_row_is_no_item_where_several_vote_on_a_prompt() -> None:
    base = {"model_a": "x", "model_b": "y", "prompt": "Why?"}
    read = rows({**base, "id": 1, "annotator": "p", "vote": "A"}, {**base, "id": 2, "annotator": "q", "vote": "[[B]]"})
    assert [row[0] for row in read] == ["Why?", "Why?"]
    assert [row[-1] for row in read] == ["a", "b"]


def test_a_column_an_annotator() -> None:
    read = rows({"idx": 0, "annotator1": 1, "annotator2": "0"}, {"idx": 1, "annotator1": 2, "annotator2": 2})
    assert [row[4:] for row in read] == [
        ("annotator1", "ab", "a"), ("annotator2", "ab", "tie"), ("annotator1", "ab", "b"), ("annotator2", "ab", "b")
    ]  # fmt: skip
    wide = rows({"item": "x", "gpt4_winner": "A", "human_winner": "tie"})
    assert [row[4:] for row in wide] == [("gpt4", "ab", "a"), ("human", "ab", "tie")]


def test_chosen_and_rejected_are_gold_and_a_score_a_side_is_a_judge() -> None:
    base = {"id": 3, "prompt": "?", "chosen": "good", "chosen_model": "x", "rejected": "bad", "rejected_model": "w"}
    read = rows(
        {**base, "scores_chosen": 0.1, "scores_rejected": 0.3},
        {**base, "id": 4, "scores_chosen": 1, "scores_rejected": 1},
    )
    assert read == [
        ("3", 0, "w", "x", "file", "ba", "a"), ("3", 0, "w", "x", "gold", "ba", "b"),
        ("4", 0, "w", "x", "file", "ba", "tie"), ("4", 0, "w", "x", "gold", "ba", "b"),
    ]  # fmt: skip
    results = rows({**base, "results": 1}, {**base, "id": 4, "results": 0.0}, {**base, "id": 5, "results": 0.5})
    assert [row[-1] for row in results if row[4] == "file"] == ["b", "a", "tie"]


def test_our_own_annotations_are_read_too() -> None:
    line = {
        "prompt_id": "authored:b17",
        "sample": 1,
        "a": "curated",
        "b": "base",
        "annotator": "ann",
        "preference": "a",
    }
    assert rows(line) == [("authored:b17", 1, "base", "curated", "ann", "ba", "b")]


def test_a_winner_may_be_told_by_name_and_columns_and_values_by_the_user() -> None:
    record = {"task": 9, "left_bot": "x", "right_bot": "y", "better": "Y", "who": "kim"}
    told = {"item": "task", "a": "left_bot", "b": "right_bot", "annotator": "who"}
    assert rows(record, columns=told) == [("9", 0, "x", "y", "kim", "ab", "b")]
    assert rows({**record, "better": "der linke"}, columns=told, meanings={"Der Linke": "a"})[0][-1] == "a"
    assert (
        rows({**record, "better": 0}, {**record, "better": 1}, columns=told, meanings={"0": "b", "1": "a"})[1][-1]
        == "a"
    )


def test_a_flag_says_who_was_shown_first_and_the_same_vote_twice_counts_once() -> None:
    base = {"item": 1, "model_a": "x", "model_b": "y", "judge": "j", "winner": "model_a"}
    both = [{**base, "swapped": False}, {**base, "swapped": True, "winner": "model_b"}, {**base, "swapped": False}]
    read = combine([read_votes(both, name="file")])
    assert read.frame["order"].to_list() == ["ab", "ba"]
    assert resolve(read.frame)["outcome"].to_list() == ["inconsistent"]
    assert "1 votes stand twice and count once" in read.notes


def test_a_vote_listed_the_other_way_round_is_the_second_order() -> None:
    first = {"item": 1, "model_a": "x", "model_b": "y", "judge": "j", "winner": "model_a"}
    turned = {**first, "model_a": "y", "model_b": "x", "winner": "model_b"}
    read = combine([read_votes([first, turned], name="file")]).frame
    assert read.select("order", "preference").rows() == [("ab", "a"), ("ba", "a")]
    assert resolve(read)["outcome"].to_list() == ["win"]


@pytest.mark.parametrize(
    ("record", "told"),
    [
        ({}, "must have a preference, got the columns"),
        ({"item": 1, "text": "x"}, "must have a preference, got the columns item, text; say which it is"),
        ({"item": 1, "winner": "the green one"}, "record 1: winner: must say a, b or tie, or name first or second"),
        ({"item": 1, "winner": 0}, "winner: must be a, b or tie, or 1, 2 and 0 for a tie, got the values 0, which can"),
        ({"item": 1, "winner": -1}, "which can be read in more than one way; say what they mean"),
        ({"item": 1, "winner": True}, "which can be read in more than one way"),
        ({"item": 1, "winner": 3}, "which can be read in more than one way"),
        ({"item": 1, "model_a": "x", "model_b": "x", "winner": "a"}, "must name two systems, got 'x' and 'x'"),
        ({"item": 1, "winner": "a", "order": "front"}, "the order must be ab or ba, or false or true for swapped"),
    ],
)  # fmt: skip
def test_what_can_be_read_in_two_ways_is_one_sentence(record: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match="file: ") as caught:
        rows(record)
    assert told in str(caught.value)


def test_a_column_that_is_not_there_and_no_votes_are_errors() -> None:
    with pytest.raises(InputError, match="no column 'who' for annotator; it has item, winner"):
        rows({"item": 1, "winner": "a"}, columns={"annotator": "who"})
    with pytest.raises(InputError, match="must hold votes, got none"):
        rows()


def test_a_majority_is_what_most_say_and_none_where_nobody_is_ahead() -> None:
    said = [{"idx": 0, "rater1": 1, "rater2": 1, "rater3": 0}, {"idx": 1, "rater1": 1, "rater2": 2, "rater3": 0}]
    votes = read_votes(said, name="file").frame
    assert majority(votes, ["rater1", "rater2", "rater3"]).select("prompt_id", "preference", "value").rows() == [
        ("0", "a", 1.0)
    ]
    assert majority(votes, ["rater1"]).is_empty()


def test_copies_need_fifty_verdicts_that_differ_among_themselves() -> None:
    def votes(n: int, *, judge: str, always: bool = False) -> list[dict[str, Any]]:
        return [{"item": i, "model_a": "x", "model_b": "y", "judge": judge, "winner": "a" if i % 3 or always else "b"}
                for i in range(n)]  # fmt: skip

    def found(n: int, *, always: bool = False) -> list[str]:
        return copies(
            read_votes(votes(n, judge="j", always=always) + votes(n, judge="k", always=always), name="f").frame
        )

    assert found(50) == [
        "the same 50 verdicts, one for one, are said to be j's on x and y and k's on x and y: one is likely a copy "
        "under a wrong name"
    ]
    assert found(49) == found(50, always=True) == []


VOTES = [{"item": i, "annotator1": 1, "annotator2": 1 + i % 2} for i in range(6)]


@pytest.mark.parametrize("name", ["v.json", "v.jsonl", "v.csv", "v.tsv", "v.parquet", "v.json.gz", "v.csv.gz"])
def test_every_kind_of_file_holds_the_same_votes(tmp_path: Path, name: str) -> None:
    table = pl.DataFrame(VOTES)
    texts = {
        "json": json.dumps({"votes": VOTES}),
        "jsonl": "\n".join(map(json.dumps, VOTES)) + "\n",
        "csv": table.write_csv(),
        "tsv": table.write_csv(separator="\t"),
    }
    path = tmp_path / name
    if name.endswith("parquet"):
        table.write_parquet(path)
    else:
        data = texts[name.split(".")[1]].encode()
        path.write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    read = read_vote_file(path, columns={}, meanings={})
    assert read.frame.equals(read_votes(VOTES, name="v").frame)


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("v.txt", b"", "must end in .csv, .tsv, .json, .jsonl, .parquet"),
        ("v.json", b"{", "not readable as .json"),
        ("v.json", b"[1, 2]", "must be a list of objects"),
        ("v.jsonl", b"\xff", "not readable as .jsonl"),
        ("v.csv.gz", b"plain", "not readable as .csv"),
        ("v.parquet", b"PAR1", "not readable as .parquet"),
        ("v.csv", b"", "not readable as .csv"),
    ],
)
def test_a_file_that_is_none_is_one_sentence(tmp_path: Path, name: str, data: bytes, told: str) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(InputError, match=f"{name}: ") as caught:
        read_vote_file(path, columns={}, meanings={})
    assert told in str(caught.value)
    with pytest.raises(InputError, match="no such file"):
        read_vote_file(tmp_path / "gone.csv", columns={}, meanings={})


def run(*arguments: str) -> None:
    agreement.main(agreement.parser().parse_args(arguments))


def test_the_command_prints_and_writes_agreement_of_kinds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = {"model_a": "x", "model_b": "y"}
    said = {"expert_1": "abta", "expert_2": "abtb", "gpt-4": "abba"}
    votes = [
        {**base, "item": i, "judge": judge, "winner": {"t": "tie"}.get(word, word)}
        for judge, words in said.items()
        for i, word in enumerate(words)
    ]
    (tmp_path / "v.json").write_text(json.dumps(votes))
    run(str(tmp_path / "v.json"), "--majority", "--out", str(tmp_path / "out"))
    told = capsys.readouterr().out
    assert "item: item, systems: model_a and model_b, annotator: judge, preference: winner" in told
    groups = pl.read_csv(tmp_path / "out/agreement_groups.csv")
    assert groups.select("group_a", "group_b", "n", "agreement").rows() == [
        ("expert", "expert", 4, 0.75), ("expert", "gpt-4", 8, 0.75), ("expert", "majority", 6, 1.0),
        ("gpt-4", "majority", 3, 0.833333),
    ]  # fmt: skip
    assert (tmp_path / "out/agreement.csv").read_text().count("\n") == 7
    assert pl.read_csv(tmp_path / "out/annotators.csv")["tie_rate"].to_list() == [0.25, 0.0, 0.333333]


def test_the_command_errs_in_sentences(tmp_path: Path) -> None:
    path = tmp_path / "v.json"
    path.write_text(json.dumps([{"item": 1, "winner": "a"}]))
    with pytest.raises(ParamsError, match="--values: must be VALUE=a"):
        run(str(path), "--values", "x")


def test_votes_that_nobody_shares_still_rank_the_systems(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = {"model_a": "x"}
    votes = [
        {**base, "question_id": i, "model_b": b, "winner": "model_a" if i % 3 else "tie", "judge": f"arena_user_{i}"}
        for i, b in enumerate(["y", "z"] * 6)
    ]
    (tmp_path / "v.json").write_text(json.dumps(votes))
    run(str(tmp_path / "v.json"))
    told = capsys.readouterr().out
    assert "agreement is not measured: no two annotators have voted on one item" in told
    rows = [line.split() for line in told.splitlines() if line.startswith("arena_user ")][1:]
    assert [row[1:3] for row in rows] == [["x", "12"], ["y", "6"], ["z", "6"]]
    assert rows[0][3] == "0.0000"
    assert float(rows[1][3]) < -0.5


def test_0_1_and_2_of_a_label_may_mean_either() -> None:
    records = [{"item": i, "label": i} for i in range(3)]  # Auto-J: 0 and 1 are the sides, 2 is a tie
    with pytest.raises(InputError, match="which can be read in more than one way"):
        rows(*records)
    assert len(rows(*records, meanings={"0": "a", "1": "b", "2": "tie"})) == 3
    told = rows(*({"idx": i, "annotator1": i} for i in range(3)))
    assert [row[ITEM.index("preference")] for row in told] == ["tie", "a", "b"]


def test_a_kind_that_never_saw_the_common_system_is_told_against_its_own() -> None:
    votes = [("people", "x", "y", 1.0), ("people", "x", "z", 1.0), ("people", "y", "z", 0.0)]
    votes += [("gpt", "u", "v", 1.0), ("gpt", "u", "w", 1.0), ("gpt", "q", "r", 0.0)]
    outcome = {1.0: "win", 0.0: "lose"}
    pairs = pl.DataFrame(
        [(f"p{i}", 0, a, b, kind, outcome[value]) for i, (kind, a, b, value) in enumerate(votes * 3)],
        schema=["prompt_id", "sample", "a", "b", "annotator", "outcome"],
        orient="row",
    )
    table = agreement.systems_table(pairs, {"people": "people", "gpt": "gpt"}, INTERVALS)
    strengths = {(row["annotator"], row["responder"]): row["strength"] for row in table.iter_rows(named=True)}
    assert strengths["people", "x"] == strengths["gpt", "u"] == 0
    assert strengths["gpt", "v"] < 0
    assert strengths["people", "y"] < strengths["people", "z"] < 0
    left_out = table.filter(pl.col("strength").is_null()).select("annotator", "responder", "n").rows()
    assert left_out == [("gpt", "q", 3), ("gpt", "r", 3)]  # no chain of comparisons leads there from u
