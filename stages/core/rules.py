"""rules: what a candidate must be like to be kept, as expressions over columns.

LIMA s2.1 names the rules for Stack Exchange and wikiHow; the rest and all patterns are *our reading*. A rule is written
once, here; whom it holds and where its limits are is data (`quality.rules` in params.yaml). A group without an entry is
not held to a rule; a rule that names no group is off.

Text is measured after cleaning. Patterns are case-insensitive regular expressions (Rust's syntax), sought in the
response's prose: what stands in code, fenced or inline, is left alone.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, NamedTuple

import polars as pl
from pydantic import Field, field_validator, model_validator

from stages.common.section import Section

# The words that carry English grammar and few other languages: the share of them in English prose is .3 to .5.
ENGLISH = (
    "the of and to a in is it you that for on are as with be this have from or by not what all we when your can there "
    "an which do how if will up about out then them these so some would like into has more no could than its was but "
    "they at he she his her their who where did does been were"
)
_ENGLISH = rf"(?i)\b(?:{ENGLISH.replace(' ', '|')})\b"
MAX_COUNT = 2**62  # beyond the 64 bits of a column a limit would become null, that is, none
_WORD = r"\p{L}+"
_CODE = r"(?s)```.*?(?:```|\z)|`[^`\n]*`"


Score = Annotated[int, Field(ge=-MAX_COUNT, le=MAX_COUNT)]


class Groups(Section):
    """The quota groups that a rule holds."""

    groups: list[str]


class Patterns(Groups):
    """Regular expressions, case-insensitive, none of which may be found."""

    patterns: list[str] = Field(min_length=1)

    @field_validator("patterns")
    @classmethod
    def _compile(cls, patterns: list[str]) -> list[str]:
        for pattern in patterns:
            try:
                pl.Series([""]).str.contains(pattern)
            except pl.exceptions.PolarsError:
                raise ValueError(f"regular expressions, which {pattern!r} is not") from None
        return patterns


class FirstPerson(Groups):
    """Words, as they are written, that mark the first person."""

    words: list[str] = Field(min_length=1)


class Title(Patterns):
    """What a title must be like to be a prompt without its body; the patterns point outside it."""

    min_words: int = Field(ge=1)


class Language(Groups):
    """The share of ENGLISH words in prose of at least so many words."""

    min_share: float = Field(ge=0, le=1)
    min_words: int = Field(ge=1)  # of fewer, a share says nothing


class Length(Section):
    """Characters of a text, both inclusive."""

    min_chars: int = Field(ge=1)
    max_chars: int = Field(ge=1, le=MAX_COUNT)

    @model_validator(mode="after")
    def _ordered(self) -> "Length":
        if self.max_chars < self.min_chars:
            raise ValueError(f"max_chars of at least min_chars {self.min_chars}")
        return self


class Rules(Section):
    """Section `quality.rules`, in the order in which the rules are applied."""

    conversation: Groups
    over_18: Groups
    min_prompt_score: dict[str, Score]
    min_score: dict[str, Score]
    length: dict[str, Length]
    prompt_length: dict[str, Length]
    prompt_form: dict[str, str]
    self_contained_title: Title
    language: Language
    first_person: FirstPerson
    references: Patterns
    template_opening: Patterns
    wikihow_sections: Patterns
    leftover_markup: Patterns

    @field_validator("prompt_form")
    @classmethod
    def _compile(cls, forms: dict[str, str]) -> dict[str, str]:
        for pattern in forms.values():
            Patterns(groups=[], patterns=[pattern])
        return forms


def named_groups(rules: Rules) -> set[str]:
    """Every group that a rule names."""
    limits = [getattr(rules, name) for name in Rules.model_fields]
    return {group for limit in limits for group in (limit.groups if isinstance(limit, Groups) else limit)}


class Rule(NamedTuple):
    """One rule over the columns of `with_text`: when a row fails, what was measured and what is allowed."""

    name: str
    failed: pl.Expr  # Boolean; null counts as not failed
    value: pl.Expr  # String
    limit: pl.Expr  # String


def with_text(rows: pl.DataFrame) -> pl.DataFrame:
    """Add what the rules look at: `roles`, `prompt` (first turn), `response` (all by the assistant) and its `prose`."""
    said = pl.element().struct.field("content")
    by_assistant = pl.element().filter(pl.element().struct.field("role") == "assistant").struct.field("content")
    return rows.with_columns(
        roles=pl.col("messages").list.eval(pl.element().struct.field("role")).list.join(", "),
        n_empty=pl.col("messages").list.eval(said.fill_null("").str.strip_chars().str.len_chars() == 0).list.sum(),
        prompt=pl.col("messages").list.first().struct.field("content").fill_null(""),
        response=pl.col("messages").list.eval(by_assistant).list.join("\n\n").fill_null(""),
    ).with_columns(prose=pl.col("response").str.replace_all(_CODE, " "))


def apply_rules(rows: pl.DataFrame, rules: Sequence[Rule]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Split rows (with the columns of `with_text`) into those that pass every rule and those that fail one.

    Returns:
        the kept rows, and the dropped ones with `rule` (the first that failed), `value` and `limit`.
    """
    first = pl.coalesce(pl.when(rule.failed).then(pl.lit(rule.name)) for rule in rules)
    judged = rows.with_columns(rule=first)
    dropped = judged.filter(pl.col("rule").is_not_null())
    told = {
        column: pl.coalesce(pl.when(pl.col("rule") == rule.name).then(getattr(rule, column)) for rule in rules)
        for column in ("value", "limit")
    }
    return judged.filter(pl.col("rule").is_null()).drop("rule"), dropped.with_columns(**told)


def make_rules(limits: Rules) -> list[Rule]:
    """Write the rules out as expressions, in their order."""
    return [
        _conversation(limits.conversation),
        _over_18(limits.over_18),
        _at_least("min_prompt_score", "prompt_score", limits.min_prompt_score),
        _at_least("min_score", "score", limits.min_score),
        _length("length", "response", limits.length),
        _length("prompt_length", "prompt", limits.prompt_length),
        _prompt_form(limits.prompt_form),
        _title(limits.self_contained_title),
        _language(limits.language),
        _first_person(limits.first_person),
        _absent("references", "prose", limits.references),
        _template_opening(limits.template_opening),
        _absent("wikihow_sections", "prose", limits.wikihow_sections),
        _absent("leftover_markup", "prose", limits.leftover_markup),
    ]


def _conversation(limits: Groups) -> Rule:
    in_turn = pl.col("roles").str.contains(r"^user, assistant(?:, user, assistant)*$")
    value = pl.when(pl.col("n_empty") > 0).then(pl.format("{} empty of: {}", "n_empty", "roles"))
    failed = ~in_turn.fill_null(value=False) | (pl.col("n_empty") > 0)
    return Rule("conversation", _holds(limits) & failed, value.otherwise(pl.col("roles")),
                pl.lit("user, assistant in turn, none empty"))  # fmt: skip


def _over_18(limits: Groups) -> Rule:
    return Rule("over_18", _holds(limits) & pl.col("over_18"), pl.lit("true"), pl.lit("false"))


def _at_least(name: str, column: str, least: Mapping[str, int]) -> Rule:
    """A count that is unknown fails: nobody is known to have voted."""
    limit = by_group(least, pl.Int64())
    too_low = pl.col(column).is_null() | (pl.col(column) < limit)
    return Rule(name, limit.is_not_null() & too_low, pl.col(column).cast(pl.String).fill_null("unknown"),
                pl.format(">= {}", limit))  # fmt: skip


def _length(name: str, column: str, limits: dict[str, Length]) -> Rule:
    least = by_group({group: limit.min_chars for group, limit in limits.items()}, pl.Int64())
    most = by_group({group: limit.max_chars for group, limit in limits.items()}, pl.Int64())
    n = pl.col(column).str.len_chars().cast(pl.Int64)
    return Rule(name, (n < least) | (n > most), pl.format("{} characters", n), pl.format("{} to {}", least, most))


def _prompt_form(forms: dict[str, str]) -> Rule:
    fails = [(pl.col("group") == group) & ~pl.col("prompt").str.contains(form) for group, form in forms.items()]
    return Rule("prompt_form", pl.any_horizontal(pl.lit(False), *fails), pl.col("prompt").str.slice(0, 80),
                by_group(forms, pl.String()))  # fmt: skip


def _title(limits: Title) -> Rule:
    """Held by rows whose prompt is the title alone though there is a body, or whose source has no body."""
    outside = pl.col("prompt").str.extract(_any(limits.patterns), 0)
    n_words = pl.col("prompt").str.count_matches(r"[\p{L}\p{N}]+")
    value = pl.when(n_words < limits.min_words).then(pl.format("{} words", n_words)).otherwise(outside)
    failed = (pl.col("prompt") == pl.col("title")) & ((n_words < limits.min_words) | outside.is_not_null())
    return Rule("self_contained_title", _holds(limits) & failed, value,
                pl.lit(f"{limits.min_words} words or more, nothing that points outside the title"))  # fmt: skip


def _language(limits: Language) -> Rule:
    n_words = pl.col("prose").str.count_matches(_WORD)
    share = pl.col("prose").str.count_matches(_ENGLISH) / n_words
    failed = _holds(limits) & (n_words >= limits.min_words) & (share < limits.min_share)
    return Rule("language", failed, pl.format("{} of {} words", share.round(3), n_words),
                pl.lit(f">= {limits.min_share} common English words"))  # fmt: skip


def _first_person(limits: FirstPerson) -> Rule:
    words = rf"\b(?:{'|'.join(map(re.escape, limits.words))})\b"
    return Rule("first_person", _holds(limits) & pl.col("prose").str.contains(words),
                pl.col("prose").str.extract(words, 0), pl.lit("absent"))  # fmt: skip


def _template_opening(limits: Patterns) -> Rule:
    opening = rf"(?i)^\s*(?:{_either(limits.patterns)})"
    return Rule("template_opening", _holds(limits) & pl.col("prose").str.contains(opening),
                pl.col("prose").str.extract(opening, 0), pl.lit("absent"))  # fmt: skip


def _absent(name: str, column: str, limits: Patterns) -> Rule:
    pattern = _any(limits.patterns)
    return Rule(name, _holds(limits) & pl.col(column).str.contains(pattern),
                pl.col(column).str.extract(pattern, 0), pl.lit("absent"))  # fmt: skip


def _any(patterns: Sequence[str]) -> str:
    return f"(?im)(?:{_either(patterns)})"


def _either(patterns: Sequence[str]) -> str:
    return "|".join(f"(?:{pattern})" for pattern in patterns)  # what one of them sets, as (?-i), ends with it


def _holds(limits: Groups) -> pl.Expr:
    return pl.col("group").is_in(limits.groups)


def by_group(values: Mapping[str, int] | Mapping[str, float] | Mapping[str, str], dtype: pl.DataType) -> pl.Expr:
    """The value of a row's group; null where the group has none."""
    if not values:
        return pl.lit(None, dtype=dtype)
    return pl.col("group").replace_strict(list(values), list(values.values()), default=None, return_dtype=dtype)
