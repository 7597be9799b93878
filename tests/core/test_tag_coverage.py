from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.core.tag_coverage import most_tags_first


def sets(*words: str) -> list[frozenset[str]]:
    return [frozenset(word) for word in words]


def test_most_tags_first_each_for_a_new_one_by_hand() -> None:
    # round 1: abc; de brings d and e; ab brings nothing; f. round 2: ab, then c; round 3: a
    assert most_tags_first(sets("ab", "abc", "f", "de", "a", "c"), 6).tolist() == [1, 3, 2, 0, 5, 4]


def test_with_one_tag_each_it_goes_round_the_tags() -> None:
    assert most_tags_first(sets("a", "a", "a", "b", "c", "b"), 6).tolist() == [0, 3, 4, 1, 5, 2]


def test_fewer_are_a_prefix() -> None:
    tags = sets("ab", "abc", "f", "de", "a", "c")
    assert [most_tags_first(tags, n).tolist() for n in (0, 2)] == [[], [1, 3]]


def test_a_row_without_a_tag_is_our_own_fault() -> None:
    with pytest.raises(AssertionError):
        most_tags_first(sets("a", ""), 1)


@given(st.lists(st.frozensets(st.sampled_from("abcdef"), min_size=1), min_size=1, max_size=30))
def test_each_round_covers_what_is_left_to_cover(tags: list[frozenset[str]]) -> None:
    order = most_tags_first(tags, len(tags)).tolist()
    assert sorted(order) == list(range(len(tags)))
    covered: set[str] = set()
    rest = set(range(len(tags)))
    for row in order:
        if tags[row] <= covered:
            assert all(tags[other] <= covered for other in rest), "a round ended too early"
            covered = set()
        covered |= tags[row]
        rest.remove(row)
