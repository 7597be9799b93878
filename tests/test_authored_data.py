"""The examples shipped under data/authored/: complete, distinct, well-formed, and right where a script can tell."""

from __future__ import annotations

import ast
import json
import re
import sqlite3
import subprocess
import sys
from collections import Counter
from itertools import combinations
from pathlib import Path

import polars as pl
import pytest
from spellchecker import SpellChecker

from stages.core.contamination import Contamination, Leak, find_leaks, guard_prompts
from stages.core.dialogues import read_words, take_apart
from stages.core.kernels import PLAIN
from stages.core.rows import Tally
from stages.core.words import normalise
from stages.schema import MESSAGES
from stages.sources import authored

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "data/authored"
LIMA_TEST = ROOT.parent / "shared/data/lima/test.jsonl"
SPLITS = ("train", "dev", "test", "dialogues")
COUNTS = {"train": 200, "dev": 50, "test": 230, "dialogues": 10}
LIMITS = Contamination(ngram_words=8, min_containment=0.3, min_copied=0.8, min_copied_words=10, min_prompt_words=5)

Line = dict[str, object]


def lines(split: str) -> list[Line]:
    return [json.loads(line) for line in (FOLDER / f"{split}.jsonl").read_text().splitlines()]


ALL = {split: lines(split) for split in SPLITS}
EVERY = [line for split in SPLITS for line in ALL[split]]


def said(line: Line, role: str) -> list[str]:
    return [turn["content"] for turn in line["messages"] if turn["role"] == role]  # type: ignore[attr-defined]


ANSWERS = [(line["id"], text) for line in EVERY for text in said(line, "assistant")]
TRAIN_ANSWERS = [text for line in ALL["train"] for text in said(line, "assistant")]


def flagged(split: str, flag: str) -> int:
    return sum(line.get(flag, False) is True for line in ALL[split])


def n_words(text: str) -> int:
    return len(text.split())


# ------------------------------------------------------------------------------------------------------- what is there


def test_the_counts_are_the_papers() -> None:
    assert {split: len(ALL[split]) for split in SPLITS} == COUNTS


def test_the_flags_are_the_papers() -> None:
    assert (flagged("train", "safety"), flagged("train", "malicious"), flagged("train", "format")) == (13, 10, 6)
    assert (flagged("test", "safety"), flagged("test", "malicious")) == (30, 10)


def test_the_projects_own_reader_takes_every_line() -> None:
    tally = Tally(authored.UNIT)
    rows = list(authored.read(FOLDER, source="authored", tally=tally))
    assert (tally.n_read, len({row.id for row in rows})) == (sum(COUNTS.values()), sum(COUNTS.values()))


def test_a_line_has_no_other_keys() -> None:
    known = {"id", "topic", "messages", "safety", "malicious", "format", "author", "license", "created"}
    assert {key for line in EVERY for key in line} <= known


def test_ids_say_what_a_line_is_about_and_not_where_it_stands() -> None:
    assert [line["id"] for line in EVERY if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)+", str(line["id"]))] == []


def test_no_topic_is_more_than_an_eighth_of_a_split() -> None:
    for split in ("train", "dev", "test"):
        topics = Counter(line["topic"] for line in ALL[split])
        assert (len(topics), max(topics.values()) <= 0.12 * len(ALL[split])) == (16, True), split


def test_dialogues_have_four_to_ten_messages_and_end_with_the_assistant() -> None:
    roles = [[turn["role"] for turn in line["messages"]] for line in ALL["dialogues"]]  # type: ignore[attr-defined]
    assert all(4 <= len(turns) <= 10 and turns == ["user", "assistant"] * (len(turns) // 2) for turns in roles)


# ---------------------------------------------------------------------------------------------------------- distinct


def leaks(rows: list[Line], prompts: list[str]) -> list[Leak]:
    """Rows that hold one of the prompts, by the project's own guard."""
    messages = pl.Series([line["messages"] for line in rows], dtype=MESSAGES)
    return find_leaks(read_words(take_apart(messages), PLAIN), guard_prompts(prompts, LIMITS), PLAIN)


def asks(line: Line) -> str:
    return said(line, "user")[0]


def test_no_prompt_is_a_near_copy_of_another() -> None:
    """Within a split and across: any two lines differ in some bit of their numbers, and so meet in one comparison."""
    turns = [{"id": line["id"], "messages": [{"role": "user", "content": asks(line)}]} for line in EVERY]
    near = []
    for bit in range(len(turns).bit_length()):
        halves = [[turn for i, turn in enumerate(turns) if i >> bit & 1 == half] for half in (0, 1)]
        for rows, others in (halves, halves[::-1]):
            near += [(rows[leak.row]["id"], leak.span) for leak in leaks(rows, list(map(asks, others)))]
    assert near == []


def test_no_two_texts_share_more_than_a_tenth_of_their_word_trigrams() -> None:
    """Exact Jaccard over everything said in a line."""
    lines_of: dict[tuple[str, ...], list[int]] = {}
    sizes = []
    for number, line in enumerate(EVERY):
        words = normalise(" ".join(said(line, "user") + said(line, "assistant"))).split()
        grams = {tuple(words[i : i + 3]) for i in range(len(words) - 2)}
        sizes.append(len(grams))
        for gram in grams:
            lines_of.setdefault(gram, []).append(number)
    shared = Counter(pair for numbers in lines_of.values() for pair in combinations(numbers, 2))
    near = [(a, b) for (a, b), n in shared.items() if n > 0.1 * (sizes[a] + sizes[b] - n)]
    assert [(EVERY[a]["id"], EVERY[b]["id"]) for a, b in near] == []


def test_no_example_holds_a_dev_or_test_prompt() -> None:
    assert leaks([*ALL["train"], *ALL["dialogues"]], list(map(asks, [*ALL["dev"], *ALL["test"]]))) == []


def test_a_planted_copy_is_found() -> None:
    planted = {"messages": [{"role": "user", "content": asks(ALL["test"][7]).upper()}]}
    assert len(leaks([planted], list(map(asks, ALL["test"])))) == 1


@pytest.mark.skipif(not LIMA_TEST.is_file(), reason="LIMA's test prompts are not here")
def test_no_prompt_is_a_near_copy_of_one_of_limas_own() -> None:
    theirs = [json.loads(line)["conversations"][0] for line in LIMA_TEST.read_text().splitlines()]
    assert [(EVERY[leak.row]["id"], leak.span) for leak in leaks(EVERY, theirs)] == []


# -------------------------------------------------------------------------------------------------------- how written

PLACEHOLDER = re.compile(
    r"\[(?:your|name|date|insert|company|address|title|city|number|amount)\b[^\]]*\]|\bTODO\b|\bTBD\b|\bXXX\b"
    r"|lorem ipsum|\{\{|<(?:name|insert|your)\b",
    re.IGNORECASE,
)
A_PERSON = re.compile(
    r"\b(?:when I was|my (?:wife|husband|kids|childhood|kitchen|garden|own experience)|I(?:'ve| have) been to"
    r"|I(?:'ve| have) (?:cooked|visited|worked|lived|traveled|tasted|played)"
    r"|I (?:grew up|remember|ate|tasted|love|enjoy)"
    r"|as a (?:human|person myself))\b"
)
CLOSING = re.compile(r"(?:hope (?:this|that) helps|let me know if|feel free to|happy to help|as an ai)", re.IGNORECASE)
FENCE = re.compile(r"```.*?```", re.DOTALL)
IN_ANOTHERS_VOICE = {"writing", "work", "relationships", "language", "advice", "law_and_money", "planning", "play"}


def test_nothing_is_left_to_be_filled_in() -> None:
    assert [(id_, found[0]) for id_, text in ANSWERS if (found := PLACEHOLDER.search(FENCE.sub("", text)))] == []


def test_no_answer_claims_a_life() -> None:
    """Quoted drafts and stories may: they are in somebody's voice; the assistant's own sentences may not."""
    topic = {line["id"]: line["topic"] for line in EVERY}
    found = [
        (id_, claim[0])
        for id_, text in ANSWERS
        if topic[id_] not in IN_ANOTHERS_VOICE and (claim := A_PERSON.search(re.sub(r'"[^"]*"', "", text)))
    ]
    assert found == []


def test_no_answer_ends_on_a_stock_phrase() -> None:
    assert [(id_, found[0]) for id_, text in ANSWERS if (found := CLOSING.search(text[-200:]))] == []


def test_no_opening_of_three_words_recurs() -> None:
    openings = Counter(" ".join(normalise(text).split()[:3]) for text in TRAIN_ANSWERS)
    assert [(words, n) for words, n in openings.items() if n > 0.05 * len(TRAIN_ANSWERS)] == []
    assert max(openings.values()) <= 3


def test_lengths_are_spread_as_the_questions_deserve() -> None:
    """Words; a token is some 0.64 words of these texts (data/authored/README.md)."""
    lengths = sorted(map(n_words, TRAIN_ANSWERS))
    mean = sum(lengths) / len(lengths)
    assert 200 <= mean <= 220
    assert (lengths[0] >= 35, lengths[-1] <= 900) == (True, True)
    assert (lengths[len(lengths) // 10] < 120, lengths[-len(lengths) // 10] > 300) == (True, True)


def test_every_word_is_spelled() -> None:
    """American; names and terms of art that the dictionary lacks are listed, so that a new one is looked at once."""
    known = set((ROOT / "tests/data/authored_words.txt").read_text().split())
    checker = SpellChecker()
    words = Counter(
        word.lower()
        for line in EVERY
        for text in said(line, "user") + said(line, "assistant")
        for word in re.findall(
            r"(?<![\w'$\\/.@#=-])[A-Za-z]{3,}(?![\w$\\/(@=])", FENCE.sub("", re.sub(r"`[^`]*`", "", text))
        )
    )
    unknown = checker.unknown(words) - known
    assert sorted(unknown) == []


# -------------------------------------------------------------------------------------------------------- what is right

# What the six prompts that fix an output structure demand, a pattern a line; {n} words are counted beside.
FORMATS = {
    "shakshuka-telegram": [
        r"[A-Z ]+", r"NEED: [^;]+(; [^;]+)+", *[rf"{i}\) .+ STOP" for i in range(1, 7)], r"READY: \d\d MIN",
    ],
    "divisible-by-six-lines": [rf"{i}\. .+ <- .+" for i in range(1, 6)],
    "newsletter-fixes-by-line": [rf"{letter} :: (OK|.+ :: .+)" for letter in "abcdef"],
    "berlin-wall-five-lines": [r"\d\d [A-Z]{3} :: .+ :: .+"] * 5,
    "second-cat-five-line-verdict": [
        r"VERDICT: \w+", *[f"{word}: .+" for word in ("FOR", "AGAINST", "TEST", "REGRET")],
    ],
    "handoff-notes-to-piped-lines": [*[r"[^|]+( \| [^|]+){3}"] * 5, "UNOWNED: 2"],
}  # fmt: skip
MOST_WORDS = {  # in a part of a line between these marks
    "shakshuka-telegram": (r"^\d\) | STOP$", 8, range(2, 8)),
    "newsletter-fixes-by-line": (r"^.* :: ", 5, (0, 1, 3, 4, 5)),
    "berlin-wall-five-lines": (" :: ", 12, range(5)),
}


@pytest.mark.parametrize("id_", FORMATS)
def test_a_fixed_structure_is_met_to_the_letter(id_: str) -> None:
    answer = next(said(line, "assistant")[0] for line in ALL["train"] if line["id"] == id_).split("\n")
    assert len(answer) == len(FORMATS[id_])
    assert [text for text, form in zip(answer, FORMATS[id_], strict=True) if not re.fullmatch(form, text)] == []
    marks, most, numbers = MOST_WORDS.get(id_, ("$", 10**6, ()))
    parts = [part for number in numbers for part in re.split(marks, answer[number])]
    assert [part for part in parts if n_words(part) > most] == []


def test_every_fixed_structure_is_looked_at() -> None:
    assert {line["id"] for line in ALL["train"] if line.get("format")} == set(FORMATS)


BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)
BLOCKS = [(str(id_), language, code) for id_, text in ANSWERS for language, code in BLOCK.findall(text)]


def blocks(language: str) -> list[object]:
    found = [pytest.param(code, id=f"{id_}-{n}") for n, (id_, name, code) in enumerate(BLOCKS) if name == language]
    return found or [pytest.param("", marks=pytest.mark.skip(reason=f"no {language}"))]


def test_fences_are_closed() -> None:
    assert [id_ for id_, text in ANSWERS if text.count("```") % 2] == []


@pytest.mark.parametrize("code", blocks("python"))
def test_python_runs(code: str, tmp_path: Path) -> None:
    command = [sys.executable, "-I", "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("code", blocks("sql"))
def test_sql_runs(code: str) -> None:
    database = sqlite3.connect(":memory:")
    database.executescript(code)
    database.close()


@pytest.mark.parametrize("code", blocks("json"))
def test_json_parses(code: str) -> None:
    json.loads(code)


@pytest.mark.parametrize("code", blocks("bash"))
def test_bash_parses(code: str) -> None:
    assert subprocess.run(["bash", "-n"], input=code, text=True, capture_output=True).stderr == ""


NUMBER = r"[-+]?\$?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?%?"
SUM = re.compile(
    rf"(?<![\w.,^/*×=+-])((?:\(*{NUMBER}\)*\s*[-+*/×÷]\s*)+\(*{NUMBER}\)*)\s*(=|≈)\s*({NUMBER})(?![\w^]|\s*[-+*/×÷^]\s*\d)"
)


def value(expression: str) -> float:
    """Of an expression of numbers, brackets and + - * / alone."""
    plain = expression.replace("×", "*").replace("÷", "/").replace("$", "").replace(",", "")
    tree = ast.parse(re.sub(r"(\d+(?:\.\d+)?)%", r"(\1/100)", plain).strip(), mode="eval")
    allowed = (ast.Expression, ast.BinOp, ast.UnaryOp, ast.Constant, ast.operator, ast.unaryop)
    assert all(isinstance(node, allowed) for node in ast.walk(tree)), expression
    return float(eval(compile(tree, "sum", "eval")))


def sums(text: str) -> list[tuple[str, str, str]]:
    return [m.groups() for m in SUM.finditer(FENCE.sub("", text)) if m[1].count("(") == m[1].count(")")]  # type: ignore[misc]


def is_right(left: str, sign: str, right: str) -> bool:
    """To the digits that are told; where a result is rounded, to one in the last digit or two in a hundred."""
    found, told = value(left), value(right)
    n_digits = len(right.rstrip("%").partition(".")[2])
    room = 0.5 * 10.0**-n_digits * (0.01 if right.endswith("%") else 1) + 1e-9
    return abs(found - told) <= (max(2 * room, 0.02 * abs(told)) if sign == "≈" else room)


def test_sums_are_right() -> None:
    told = [(id_, *parts) for id_, text in ANSWERS for parts in sums(text)]
    assert [parts for parts in told if not is_right(*parts[1:])] == []
    assert len(told) >= 50


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("so 12 * 3 = 36, then", [("12 * 3", "=", "36")]),
        ("$1,250 / 4 = $312.50", [("$1,250 / 4", "=", "$312.50")]),
        ("1/2 cup", []),
        ("2 + 3 = 5 - 0", []),
    ],
)
def test_sums_are_found(text: str, found: list[tuple[str, str, str]]) -> None:
    assert sums(text) == found


@pytest.mark.parametrize("wrong", ["12 * 3 = 35", "$10 / 4 = $2.40", "2 / 3 ≈ 0.9", "3 / 4 = 70%"])
def test_a_wrong_sum_is_seen(wrong: str) -> None:
    ((left, sign, right),) = sums(wrong)
    assert not is_right(left, sign, right)
