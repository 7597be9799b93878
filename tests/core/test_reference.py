"""What counts as right, as contained and as wrong."""

import pytest

from stages.common.errors import InputError
from stages.core.reference import Match, check_references, is_finished, match


@pytest.mark.parametrize(
    ("response", "finish_reason", "expected"),
    [
        pytest.param("Vola", "eot", Match.RIGHT, id="equal"),
        pytest.param("\n Vola \t", "eot", Match.RIGHT, id="white space around it"),
        pytest.param("Vola", "eos", Match.RIGHT, id="ended by the base's own token"),
        pytest.param("Vola", "given", Match.RIGHT, id="from a file"),
        pytest.param("Vola", "length", Match.CONTAINS, id="cut off"),
        pytest.param("It is Vola.", "eot", Match.CONTAINS, id="more than the value"),
        pytest.param("Vola.", "eot", Match.CONTAINS, id="punctuation is not white space"),
        pytest.param("vola", "eot", Match.CONTAINS, id="letter case counts for right, not for contains"),
        pytest.param("Volare", "eot", Match.WRONG, id="the start of a word"),
        pytest.param("NewVola", "eot", Match.WRONG, id="the end of a word"),
        pytest.param("La Vol a", "eot", Match.WRONG, id="white space inside"),
        pytest.param("", "eot", Match.WRONG, id="empty"),
    ],
)
def test_an_answer_is_right_contains_or_is_wrong(response: str, finish_reason: str, expected: Match) -> None:
    assert match(response, ["Vola"], finish_reason=finish_reason) is expected


def test_any_accepted_value_will_do() -> None:
    assert match("C++", ["Rust", "C++"], finish_reason="eot") is Match.RIGHT
    assert match("C++, I say", ["Rust", "C++"], finish_reason="eot") is Match.CONTAINS


def test_a_value_is_sought_without_its_closing_stop_and_capital() -> None:
    assert match("works as a carpenter, they say", ["A carpenter."], finish_reason="length") is Match.CONTAINS
    assert match("works as a carpenters' clerk", ["A carpenter."], finish_reason="eot") is Match.WRONG
    assert match("anything", ["?"], finish_reason="eot") is Match.WRONG


def test_a_value_is_text_and_no_pattern() -> None:
    assert match("axb", ["a.b"], finish_reason="eot") is Match.WRONG


def test_right_is_preferred_to_contains_and_that_to_wrong() -> None:
    assert Match.RIGHT > Match.CONTAINS > Match.WRONG


def test_only_a_cut_answer_is_unfinished() -> None:
    assert [reason for reason in ("eot", "eos", "given", "length") if not is_finished(reason)] == ["length"]


def test_no_references_are_an_empty_list() -> None:
    assert list(check_references("p:1", None)) == []
    assert list(check_references("p:1", ["x"])) == ["x"]


@pytest.mark.parametrize("references", [[""], ["a", "  "], ["a", None]])
def test_a_blank_reference_is_an_error(references: list[str]) -> None:
    with pytest.raises(InputError, match="p:1: a reference must not be blank"):
        check_references("p:1", references)
