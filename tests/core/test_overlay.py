from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.common.errors import ParamsError
from stages.core.overlay import ABSENT, at_path, differences, filled, leaves, merged, parts

KEYS = st.sampled_from(["a", "b", "c"])
VALUES = st.recursive(
    st.integers(0, 2), lambda inner: st.dictionaries(KEYS, inner, min_size=1, max_size=3), max_leaves=6
)
TREES = st.dictionaries(KEYS, VALUES, max_size=3)


@pytest.mark.parametrize(
    ("desc", "old", "new", "whole", "expected"),
    [
        ("maps merge", {"a": {"x": 1, "y": 1}}, {"a": {"y": 2}}, [], {"a": {"x": 1, "y": 2}}),
        ("a list is one value", {"a": [1, 2]}, {"a": [3]}, [], {"a": [3]}),
        ("a map takes a scalar's place", {"a": 1}, {"a": {"x": 1}}, [], {"a": {"x": 1}}),
        ("a scalar takes a map's place", {"a": {"x": 1}}, {"a": None}, [], {"a": None}),
        ("a whole map is not merged", {"a": {"x": 1}}, {"a": {"y": 2}}, ["a"], {"a": {"y": 2}}),
        ("nor one further down", {"a": {"b": {"x": 1}, "c": 1}}, {"a": {"b": {}}}, ["a.b"], {"a": {"b": {}, "c": 1}}),
    ],
)
def test_merged(desc: str, old: Any, new: Any, whole: list[str], expected: Any) -> None:
    assert merged(old, new, whole=whole) == expected, desc


@given(TREES, TREES)
def test_every_leaf_of_what_is_laid_over_is_in_the_result_and_nothing_is_invented(old: Any, new: Any) -> None:
    result = leaves(merged(old, new, whole=[]))
    assert leaves(new).items() <= result.items() or not new
    assert result.items() <= {**leaves(old), **leaves(new)}.items() or not (old or new)


@given(TREES, TREES)
def test_neither_tree_is_changed_and_twice_is_once(old: Any, new: Any) -> None:
    before = repr((old, new))
    once = merged(old, new, whole=[])
    assert merged(once, new, whole=[]) == once
    assert repr((old, new)) == before


def test_the_result_shares_nothing_with_what_went_in() -> None:
    old: dict[str, Any] = {"a": {"x": [1]}}
    merged(old, {"b": 1}, whole=[])["a"]["x"].append(2)
    assert old == {"a": {"x": [1]}}


def test_an_argument_is_not_looked_into() -> None:
    assert filled({"p": ["${a}${b}", 3]}, {"a": "${b}", "b": "\\1"}) == {"p": ["${b}\\1", 3]}


def test_an_undeclared_argument_is_an_error() -> None:
    with pytest.raises(ParamsError, match=r"^'\$\{gone\}/x': an argument that is not declared, got 'gone'"):
        filled({"a": "${gone}/x"}, {})


@pytest.mark.parametrize(("path", "expected"), [("a.b", 1), ("a", {"b": 1}), ("a.c", ABSENT), ("a.b.c", ABSENT)])
def test_at_path(path: str, expected: object) -> None:
    assert at_path({"a": {"b": 1}}, path) == expected


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("a", ["a"]),
        ("a.*", ["a.x", "a.y"]),
        ("a.*.n", ["a.x.n", "a.y.n"]),
        ("gone", ["gone"]),
        ("gone.*", []),
    ],
)
def test_parts(pattern: str, expected: list[str]) -> None:
    assert [path for path, _ in parts({"a": {"x": {"n": 1}, "y": {}}}, pattern)] == expected


def test_a_missing_part_is_absent() -> None:
    assert dict(parts({"a": {"x": {"n": 1}, "y": {}}}, "a.*.n")) == {"a.x.n": 1, "a.y.n": ABSENT}


@given(TREES, TREES)
def test_differences_are_none_only_for_equal_trees(old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    assert (differences(old, new) == {}) == (leaves(old) == leaves(new))
    assert all(before != after for before, after in differences(old, new).values())
