"""votes: read anybody's pairwise votes, by people or machines, into the rows that the score works on.

A record is one row of a table or one JSON object; nested objects are flattened (`results.swap = True.winner`). What a
column is, its name tells (NAMES, letters and digits only, whatever the case), and the reader may be told otherwise:

- item: an id, or the text of the prompt (with `input`, where there is one); without any, the place in the file;
- systems: two columns of names, or one (`model`) that was compared with one unnamed baseline; without any, the two are
  called "first" and "second";
- annotator: a column; without one, the name of the file;
- preference: a column `winner`, `preference`, `vote`, ... (a vote a row), or one column an annotator (`annotator1`,
  `gpt_result`, `label`), or one flag a side (`winner_model_a`, `winner_model_b`, `winner_tie`), or a score a side, or
  `chosen` and `rejected` (what the annotator "gold" prefers);
- order: a vote in a second order is a column of its own (`swap = True`, `g2_winner`), a flag (`order`, `swapped`), or a
  second row that names the systems the other way round. A preference is about the systems, not about positions.

What a preference says is read by VALUES, or as the name of a system. A number from 1 to 2 says how far the second is
preferred, as in AlpacaEval (0 and 1.5 are ties). Whatever was no verdict is `failed`, never a tie. Two equal scores
are a tie, whatever winner was stored beside them. What can be read in two ways is an error that says how to tell.

The shapes are those of MT-Bench, Chatbot Arena, AlpacaEval, PandaLM, LLMBar and RewardBench, and of data/annotations.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import polars as pl

from stages.common.errors import InputError
from stages.core.preferences import ITEM
from stages.schema import RECEIPT, VERDICT

Record = Mapping[str, Any]

# A vote: the columns of schema.VERDICT that `preferences.resolve` needs, `a` before `b` by name, and beside them how
# far `a` is preferred (0 to 1, null: failed) and how long both answers are in characters (null: unknown).
VOTE: dict[str, pl.DataType] = {
    **{name: dtype for name, dtype in VERDICT.items() if name not in RECEIPT},
    "value": pl.Float64(),
    "chars_a": pl.Int64(),
    "chars_b": pl.Int64(),
}

FAILED = "failed"
ROLES = ("item", "turn", "a", "b", "annotator", "preference", "order")
MEANINGS = ("a", "b", "tie", "failed")

# Names by role, the first that a file has is taken; letters and digits only.
NAMES: dict[str, tuple[str, ...]] = {
    "item": (
        "promptid", "questionid", "itemid", "item", "idx", "exampleid", "instructionid", "pairid", "uid", "id", "index",
        "conversationid", "instructionsha1", "instruction", "question", "prompt", "input",
    ),
    "turn": ("turn", "sample"),
    "annotator": (
        "annotator", "annotatorid", "annotatorname", "annotatorindex", "judge", "judgeid", "judgename", "judgemodel",
        "rater", "raterid", "workerid", "evaluator", "evaluatorid", "labeler", "userid",
    ),
    "preference": (
        "preference", "winner", "verdict", "vote", "choice", "decision", "outcome", "judgment", "judgement", "better",
        "humanpreference", "humanlabel", "goldlabel", "label", "result", "results",
    ),
    "order": ("order", "swap", "swapped", "isswapped", "isswitchedoutputs"),
}  # fmt: skip
SIDES: dict[str, tuple[tuple[str, str], ...]] = {
    "systems": (
        ("modela", "modelb"), ("model1", "model2"), ("generator1", "generator2"), ("systema", "systemb"),
        ("system1", "system2"), ("assistanta", "assistantb"), ("a", "b"), ("chosenmodel", "rejectedmodel"),
    ),
    "scores": (("scorea", "scoreb"), ("score1", "score2"), ("scoreschosen", "scoresrejected")),
    "texts": (
        ("responsea", "responseb"), ("response1", "response2"), ("output1", "output2"), ("outputa", "outputb"),
        ("answera", "answerb"), ("answer1", "answer2"), ("completiona", "completionb"), ("chosen", "rejected"),
    ),
    "lengths": (("len1", "len2"), ("lena", "lenb"), ("length1", "length2"), ("lengtha", "lengthb")),
    "flags": (("winnermodela", "winnermodelb"), ("winnera", "winnerb")),
    "orders": (("g1winner", "g2winner"),),
}  # fmt: skip
TIE_FLAGS = ("winnertie", "winnertiebothbad", "tie")
SINGLE_SYSTEM = ("model", "generator", "system")
BASELINE = "baseline"
FIRST, SECOND, CHOSEN, REJECTED = "first", "second", "chosen", "rejected"  # systems without names
GOLD = "gold"
ONE_EACH = re.compile(r"(annotator|rater|person|human|labeler|worker|expert|author|judge|crowd)\d+")
ONE_EACH_SUFFIX = re.compile(r"(?<=.)(result|preference|winner|vote|verdict|label)$")
SWAP = re.compile(r"swap(false|true)")

# What a text says, in lower case without brackets around it.
VALUES: dict[str, str] = {
    **dict.fromkeys(("a", "1", "1.0", "first", "left", "chosen", "a>b", "a>>b", "output (a)"), "a"),
    **dict.fromkeys(("b", "2", "2.0", "second", "right", "rejected", "b>a", "b>>a", "a<b", "a<<b", "output (b)"), "b"),
    **{f"{what}{join}{one}": side for what in ("model", "output", "response", "answer", "assistant", "system")
       for join in ("_", " ", "") for side, names in (("a", "a1"), ("b", "b2")) for one in names},
    **dict.fromkeys(
        ("tie", "0", "0.0", "1.5", "c", "draw", "equal", "neither", "both", "same", "a=b", "tie (bothbad)", "both_bad",
         "bothbad", "both bad"), "tie"),
    **dict.fromkeys(
        ("", "error", "garbage", "failed", "none", "null", "n/a", "na", "nan", "invalid", "unparsed", "refused",
         "$error$"), FAILED),
    "tie (inconsistent)": "inconsistent",
    "inconsistent": "inconsistent",
}  # fmt: skip


class Votes(NamedTuple):
    """The votes (VOTE, sorted) of one or several files, and what a reader should know of how they were read."""

    frame: pl.DataFrame
    notes: tuple[str, ...]


class _Ballot(NamedTuple):
    """Where the votes of one annotator stand in a record: one column an order, or a pair of columns."""

    annotator: str | None  # None: as the annotator column says
    columns: tuple[str, ...]
    kind: str  # word, flags, scores, chosen
    order: str | None  # ab, ba; None: as the order column says, else as the record lists the systems


class _Layout(NamedTuple):
    """What each column of a file is."""

    item: tuple[str, ...]
    turn: str | None
    systems: tuple[str | None, str | None]
    annotator: str | None
    order: str | None
    ballots: tuple[_Ballot, ...]
    scores: tuple[str, str] | None  # beside stored winners: equal ones are ties
    texts: tuple[str, str] | None
    lengths: tuple[str, str] | None


def read_votes(
    records: Sequence[Record],
    *,
    name: str,
    columns: Mapping[str, str] | None = None,
    meanings: Mapping[str, str] | None = None,
) -> Votes:
    """Read the votes of one file.

    Args:
        records: its rows or objects.
        name: what it is called, for errors, and as the annotator where no column names one.
        columns: columns by role (ROLES), over what their names say; `preference` may be several, with commas.
        meanings: what a value of the preference says (a, b, tie, failed), over VALUES.

    Raises:
        InputError: there are no votes, or a column or value cannot be read in one way.
    """
    rows = [dict(_flat(record)) for record in records]
    if not rows:
        raise InputError(f"{name}: must hold votes, got none; give a file with a vote, or an item, a row")
    layout = _layout(rows, name, columns or {})
    said = {key.strip().lower(): value for key, value in (meanings or {}).items()}
    _check_numbers(rows, layout, name, said)
    reader = _Reader(name, layout, said)
    votes = [vote for number, row in enumerate(rows, 1) for vote in reader.votes(row, number)]
    notes = [f"{name}: {len(votes):,} votes in {len(rows):,} records; {_told(layout)}"]
    if reader.n_equal:
        notes.append(f"{name}: {reader.n_equal:,} votes on equal scores are ties, whatever winner is stored")
    frame = pl.DataFrame(votes, schema=VOTE, orient="row")
    return Votes(_turned(frame, pl.col("a") > pl.col("b")), tuple(notes))


def combine(parts: Iterable[Votes]) -> Votes:
    """Put the votes of several files together, each vote once.

    A vote that is given again in the same order and agrees is a copy and dropped; if it differs, both stay, and the
    pair counts as inconsistent.
    """
    given = list(parts)
    votes = pl.concat([pl.DataFrame(schema=VOTE), *(part.frame for part in given)])
    known = [column for column in VOTE if not column.startswith("chars")]
    once = votes.unique(known, keep="first", maintain_order=True).sort(*(known[:6]), "value", nulls_last=True)
    notes = [note for part in given for note in part.notes]
    if n_copies := votes.height - once.height:
        notes.append(f"{n_copies:,} votes stand twice and count once")
    twice = once.filter(once.select(known[:6]).is_duplicated()).select(known[:6]).unique().height
    if twice:
        notes.append(f"{twice:,} times somebody votes twice on the same pair in the same order, and differently")
    return Votes(once, (*notes, *copies(once)))


def copies(votes: pl.DataFrame, *, min_items: int = 50) -> list[str]:
    """Find verdicts that two annotators, or two systems, share to the last item: one is likely a copy of the other.

    Args:
        votes: VOTE rows.
        min_items: shorter series are not looked at, nor those that hold one value only.
    """
    series: dict[tuple[Any, ...], list[tuple[str, str, str]]] = {}
    for (annotator, a, b), some in votes.partition_by("annotator", "a", "b", as_dict=True).items():
        ordered = some.sort("prompt_id", "sample", "order").select("prompt_id", "sample", "order", "value")
        if ordered.height >= min_items and ordered["value"].n_unique() > 1:
            series.setdefault(tuple(ordered.rows()), []).append((annotator, a, b))
    told = {
        " and ".join(f"{annotator}'s on {a} and {b}" for annotator, a, b in who): len(rows)
        for rows, who in series.items()
        if len(who) > 1
    }
    return [
        f"the same {n:,} verdicts, one for one, are said to be {whose}: one is likely a copy under a wrong name"
        for whose, n in told.items()
    ]


def majority(votes: pl.DataFrame, annotators: Iterable[str], *, name: str = "majority") -> pl.DataFrame:
    """What most of these annotators say of a pair, as the votes of one more; none where no preference is ahead.

    Args:
        votes: VOTE rows.
        annotators: at least two of whom must have voted on a pair.
        name: of the new annotator.
    """
    counted = (
        votes.filter(pl.col("annotator").is_in(list(annotators)))
        .drop_nulls("preference")
        .group_by("prompt_id", "sample", "a", "b")
        .agg(
            pl.col("preference").mode().sort(),
            pl.col("annotator").n_unique().alias("n"),
            *(pl.col(c).first() for c in ("chars_a", "chars_b")),
        )
        .filter(pl.col("n") > 1, pl.col("preference").list.len() == 1)
        .with_columns(pl.col("preference").list.first())
    )
    value = pl.col("preference").replace_strict({"a": 1.0, "tie": 0.5, "b": 0.0}, return_dtype=pl.Float64)
    absent = [pl.lit(None, pl.String).alias(column) for column in ("order", "unscored_reason")]
    named = counted.with_columns(value.alias("value"), pl.lit(name).alias("annotator"), *absent)
    return named.select(pl.col(column).cast(dtype) for column, dtype in VOTE.items()).sort(*ITEM)


def about(votes: pl.DataFrame, system: str) -> pl.DataFrame:
    """The votes on one system, as `a`; `value` is how far it is preferred."""
    some = votes.filter((pl.col("a") == system) | (pl.col("b") == system))
    return _turned(some, pl.col("b") == system)


def _turned(votes: pl.DataFrame, turned: pl.Expr) -> pl.DataFrame:
    """The votes with both sides exchanged where `turned`."""
    other_side, other_order = (
        pl.col("preference").replace({"a": "b", "b": "a"}),
        pl.col("order").replace({"ab": "ba", "ba": "ab"}),
    )
    exchanged: dict[str, str | pl.Expr] = {
        "a": "b",
        "b": "a",
        "chars_a": "chars_b",
        "chars_b": "chars_a",
        "preference": other_side,
        "order": other_order,
        "value": 1 - pl.col("value"),
    }
    return votes.with_columns(
        pl.when(turned).then(pl.col(other) if isinstance(other, str) else other).otherwise(pl.col(column)).alias(column)
        for column, other in exchanged.items()
    )


def _flat(record: Record, above: str = "") -> Iterable[tuple[str, Any]]:
    """Leaves by dotted path; a list of one is its item, a list of texts is one text, other lists stay whole."""
    for key, value in record.items():
        value = value[0] if isinstance(value, list) and len(value) == 1 else value
        path = f"{above}{key}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{path}.")
        elif isinstance(value, list) and value and all(isinstance(part, str) for part in value):
            # e.g. a judge ["gpt-4", "pair-v2"], or a score with why the reply ended ["8", "stop"]
            yield path, value[0] if above else " ".join(value)
        else:
            yield path, value


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _layout(rows: Sequence[Record], file: str, told: Mapping[str, str]) -> _Layout:
    names = list(dict.fromkeys(key for row in rows for key in row))
    for role, wanted in told.items():
        for column in wanted.split(","):
            if column not in names:
                raise InputError(f"{file}: no column {column!r} for {role}; it has {', '.join(names)}")
    # by the last part of a nested name, the whole name first
    plain = {_plain(name.rpartition(".")[2]): name for name in reversed(names)} | {_plain(name): name for name in names}

    def one(role: str) -> str | None:
        return told.get(role) or next((plain[name] for name in NAMES[role] if name in plain), None)

    def two(role: str) -> tuple[str, str] | None:
        return next(((plain[a], plain[b]) for a, b in SIDES[role] if a in plain and b in plain), None)

    annotator = one("annotator")
    systems: tuple[str | None, str | None] = (told.get("a"), told.get("b"))
    if systems == (None, None):
        single = next((plain[name] for name in SINGLE_SYSTEM if name in plain), None)
        systems = two("systems") or _one_system(single if annotator else None)
    candidates = [plain[name] for name in NAMES["item"] if name in plain]
    item = told.get("item") or _item(rows, candidates, annotator=annotator)
    more = plain.get("input") if item and _plain(item) in ("instruction", "question", "prompt") else None
    scores = two("scores")
    ballots = _ballots(names, plain, two, told, scores)
    if not ballots:
        raise InputError(
            f"{file}: must have a preference, got the columns {', '.join(names)}; say which it is (--preference COLUMN)"
        )
    return _Layout(
        item=tuple(column for column in (item, more) if column),
        turn=one("turn"),
        systems=systems,
        annotator=annotator,
        order=one("order") if not any(ballot.order for ballot in ballots) else None,
        ballots=ballots,
        scores=scores if ballots[0].kind == "word" and "preference" not in told else None,
        texts=two("texts"),
        lengths=two("lengths"),
    )


def _one_system(column: str | None) -> tuple[str | None, str | None]:
    return None, column


def _item(rows: Sequence[Record], candidates: Sequence[str], *, annotator: str | None) -> str | None:
    """The first column that may name the item; among several annotators' votes, the first that does not number rows."""
    several = annotator is not None and len({str(row.get(annotator)) for row in rows}) > 1
    repeated = (column for column in candidates if len({str(row.get(column)) for row in rows}) < len(rows))
    return next(repeated if several else iter(()), next(iter(candidates), None))


def _ballots(
    names: Sequence[str],
    plain: Mapping[str, str],
    two: Callable[[str], tuple[str, str] | None],
    told: Mapping[str, str],
    scores: tuple[str, str] | None,
) -> tuple[_Ballot, ...]:
    """Every column, or set of columns, that holds votes."""
    if "preference" in told:
        chosen = told["preference"].split(",")
        orders = [_swapped(column) for column in chosen]
        if len(chosen) == 2 and set(orders) == {"ab", "ba"}:
            return tuple(_Ballot(None, (column,), "word", order) for column, order in zip(chosen, orders, strict=True))
        return tuple(_Ballot(_who(c) if len(chosen) > 1 else None, (c,), "word", _swapped(c)) for c in chosen)
    gold = [_Ballot("label", (plain["label"],), "word", None)] if "label" in plain else []
    swaps = [name for name in names if _swapped(name) and _plain(name.rpartition(".")[2]) in NAMES["preference"]]
    if swaps:
        return (*(_Ballot(None, (name,), "word", _swapped(name)) for name in swaps), *gold)
    if games := two("orders"):
        return (_Ballot(None, games[:1], "word", "ab"), _Ballot(None, games[1:], "word", "ba"))
    each = [name for name in names if ONE_EACH.fullmatch(_plain(name))]
    if each:
        return tuple(_Ballot(name, (name,), "word", None) for name in each)
    if flags := two("flags"):
        ties = [plain[name] for name in TIE_FLAGS if name in plain]
        return (_Ballot(None, (*flags, *ties), "flags", None),)
    is_chosen = "chosen" in plain and "rejected" in plain
    known = [plain[name] for name in NAMES["preference"] if name in plain and not (is_chosen and "result" in name)]
    suffixed = [name for name in names if ONE_EACH_SUFFIX.search(_plain(name)) and name not in known]
    if len(known) + len(suffixed) > 1 or (suffixed and not known):
        return tuple(_Ballot(_who(name), (name,), "word", None) for name in (*known, *suffixed))
    if known:
        return (_Ballot(None, (known[0],), "word", None),)
    found = []
    if scores:
        found.append(_Ballot(None, scores, "scores", None))
    if is_chosen:
        if results := plain.get("results", plain.get("result")):
            found.append(_Ballot(None, (results,), "right", None))
        found.append(_Ballot(GOLD, (plain["chosen"], plain["rejected"]), "chosen", None))
    return tuple(found)


def _who(column: str) -> str:
    """An annotator's name from that of a column: `gpt_result` is `gpt`."""
    return re.sub(r"[_. -]*(result|preference|winner|vote|verdict|label)$", "", column, flags=re.IGNORECASE) or column


def _swapped(column: str) -> str | None:
    found = SWAP.search(_plain(column))
    return {"false": "ab", "true": "ba"}[found[1]] if found else None


def _told(layout: _Layout) -> str:
    """What was taken for what."""
    systems = " and ".join(column or BASELINE for column in layout.systems) if any(layout.systems) else "not named"
    told = {
        "item": " and ".join(layout.item) or "the place in the file",
        "systems": systems,
        "annotator": layout.annotator or "see preference",
        "preference": ", ".join(" and ".join(ballot.columns) for ballot in layout.ballots),
    }
    return ", ".join(f"{role}: {columns}" for role, columns in told.items())


def _check_numbers(rows: Sequence[Record], layout: _Layout, name: str, said: Mapping[str, str]) -> None:
    """0 and 1 alone, or a number below 0, say different things in different sets; so do true and false."""
    columns = [ballot.columns[0] for ballot in layout.ballots if ballot.kind == "word"]
    values = {_word(row.get(column)) for row in rows for column in columns} - said.keys()
    numbers = {float(value) for value in values if re.fullmatch(r"-?\d+(\.\d+)?", value)}
    is_label = any(_plain(column).endswith("label") for column in columns)  # Auto-J's 2 is a tie, others' 0 is
    is_outside = bool(numbers) and not (min(numbers) >= 0 and max(numbers) <= 2)
    if is_outside or (0 in numbers and (is_label or max(numbers) <= 1)) or values & {"true", "false"}:
        raise InputError(
            f"{name}: {', '.join(columns)}: must be a, b or tie, or 1, 2 and 0 for a tie, got the values "
            f"{', '.join(sorted(values)[:6])}, which can be read in more than one way; say what they mean "
            "(--values 0=tie 1=a 2=b)"
        )


def _word(value: Any) -> str:  # noqa: ANN401 - JSON is any tree of plain values
    text = "" if value is None else str(value).strip().lower()
    return re.sub(r"^\[+(.*?)\]+$", r"\1", text)


class _Reader:
    """Reads record after record of one file, and counts what it met on the way."""

    def __init__(self, name: str, layout: _Layout, said: Mapping[str, str]) -> None:
        self.name, self.layout, self.said = name, layout, said
        self.n_equal = 0
        self._answers: dict[tuple[str, int], dict[tuple[str, ...], int]] = {}  # pairs of answers by item

    def votes(self, row: Record, number: int) -> Iterable[tuple[Any, ...]]:
        """The votes of one record: VOTE rows, sides as the record has them."""
        layout, where = self.layout, f"{self.name}: record {number}"
        systems = _systems(row, layout, where)
        texts = [row.get(column) for column in layout.texts] if layout.texts else [None, None]
        item = (*self._item(row, number, texts), *systems)
        chars = [_chars(row, layout, side, text) for side, text in enumerate(texts)]
        listed = _order(row.get(layout.order) if layout.order else None, where)
        is_equal = layout.scores is not None and _by_score(row, layout.scores) == "tie"
        for ballot in layout.ballots:
            preference, value = _said(row, ballot, systems, where=where, said=self.said)
            if is_equal and ballot.annotator is None and preference in ("a", "b"):
                preference, value = _valued("tie")
                self.n_equal += 1
            head = (*item, self._annotator(row, ballot))
            if preference == "inconsistent":  # stored in one word: the two orders disagree
                yield (*head, "ab", "a", None, 1.0, *chars)
                yield (*head, "ba", "b", None, 0.0, *chars)
            else:
                yield (*head, ballot.order or listed, preference, None if preference else FAILED, value, *chars)

    def _item(self, row: Record, number: int, texts: Sequence[object]) -> tuple[str, int]:
        layout = self.layout
        prompt_id = "\n\n".join(str(row[c]) for c in layout.item if row.get(c) not in (None, "")) or str(number)
        turn = str(row.get(layout.turn)) if layout.turn else ""
        sample = int(turn) if turn.isdigit() else 0
        if not any(layout.systems) and None not in texts:  # unnamed systems: another pair of answers is another pair
            seen = self._answers.setdefault((prompt_id, sample), {})
            sample += seen.setdefault(tuple(map(str, texts)), len(seen))
        return prompt_id, sample

    def _annotator(self, row: Record, ballot: _Ballot) -> str:
        if ballot.annotator:
            return ballot.annotator
        said = row.get(self.layout.annotator) if self.layout.annotator else None
        return self.name if said is None else str(said)


def _chars(row: Record, layout: _Layout, side: int, text: object) -> int | None:
    """Length of one answer in characters."""
    given = str(row.get(layout.lengths[side])) if layout.lengths else ""
    if given.isdigit():
        return int(given)
    return len(text) if isinstance(text, str) else None


def _by_score(row: Record, scores: Sequence[str]) -> str | None:
    first, second = (_number(row.get(column)) for column in scores)
    if first is None or second is None:
        return None
    return "tie" if first == second else "a" if first > second else "b"


def _systems(row: Record, layout: _Layout, where: str) -> tuple[str, str]:
    first, second = layout.systems
    if first is None and second is None:
        is_chosen = layout.texts is not None and _plain(layout.texts[0]) == CHOSEN
        return (CHOSEN, REJECTED) if is_chosen else (FIRST, SECOND)
    names = [BASELINE if column is None else row.get(column) for column in (first, second)]
    if None in names or "" in names or names[0] == names[1]:
        raise InputError(
            f"{where}: must name two systems, got {names[0]!r} and {names[1]!r}; mend the record, or name the columns "
            "(--a, --b)"
        )
    return str(names[0]), str(names[1])


def _order(value: object, where: str) -> str:
    """Who was shown first: without a word on it, the system that is listed first."""
    known = {"": "ab", "ab": "ab", "ba": "ba", "false": "ab", "true": "ba", "0": "ab", "1": "ba"}
    if (word := _word(value)) not in known:
        raise InputError(f"{where}: the order must be ab or ba, or false or true for swapped, got {value!r}; mend it")
    return known[word]


def _said(
    row: Record, ballot: _Ballot, systems: tuple[str, str], *, where: str, said: Mapping[str, str]
) -> tuple[str | None, float | None]:
    """The preference of one ballot and how far `a` is preferred; None and None: failed."""
    values = [row.get(column) for column in ballot.columns]
    if ballot.kind == "chosen":
        return "a", 1.0
    if ballot.kind == "flags":
        raised = [str(value).strip().lower() in ("1", "1.0", "true") for value in values]
        if sum(raised) != 1:
            return None, None
        return _valued("ab"[raised.index(True)] if raised.index(True) < 2 else "tie")
    if ballot.kind == "scores":
        by_score = _by_score(row, ballot.columns)
        return _valued(by_score) if by_score else (None, None)
    word = _word(values[0])
    if ballot.kind == "right":  # 1: the chosen answer was preferred
        word = {"1": "a", "1.0": "a", "0": "b", "0.0": "b", "0.5": "tie"}.get(word, word)
    names = {systems[0].lower(): "a", systems[1].lower(): "b"}
    meaning = said.get(word) or names.get(word) or VALUES.get(word)
    if meaning is None and (number := _number(word)) is not None and 1 < number < 2:
        return ("tie" if number == 1.5 else "a" if number < 1.5 else "b"), 2 - number
    if meaning is None:
        raise InputError(
            f"{where}: {ballot.columns[0]}: must say a, b or tie, or name {systems[0]} or {systems[1]}, got "
            f"{str(values[0])[:60]!r}; say what it means (--values '{str(values[0])[:20]}=tie', or =a, =b, =failed)"
        )
    return (None, None) if meaning == FAILED else _valued(meaning)


def _valued(meaning: str) -> tuple[str, float]:
    return meaning, {"a": 1.0, "b": 0.0}.get(meaning, 0.5)


def _number(value: object) -> float | None:
    try:
        return float(str(value))
    except ValueError:
        return None
