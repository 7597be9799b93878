import string
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from stages.core.yaml_edit import WIDTH, rewrite, scalar

TEXT = """\
# the top
lr: 1.0e-3              # first step
nested:                 # a map
  name: 'quoted'
  deep:
    flow: {a: 1,  b: "two"}   # odd blanks
    list: [x, "${y}", z]

# ---- the next section
last:
  - one
  - "two"
"""


def load(text: str) -> Any:
    return YAML(typ="safe", pure=True).load(text)


def changed(**changes: Any) -> str:
    """TEXT rewritten with values at the paths a__b__c."""
    value = load(TEXT)
    for path, new in changes.items():
        *above, key = path.split("__")
        section = value
        for part in above:
            section = section[part]
        section[key] = new
    return rewrite(TEXT, value)


def diff(text: str) -> list[str]:
    """Lines of TEXT that are gone, and lines that are new."""
    old, new = TEXT.splitlines(), text.splitlines()
    return [f"-{line}" for line in old if line not in new] + [f"+{line}" for line in new if line not in old]


def test_what_is_equal_is_left_alone() -> None:
    assert rewrite(TEXT, load(TEXT)) == TEXT


def test_a_scalar_is_replaced_and_its_comment_keeps_its_column() -> None:
    assert diff(changed(lr=0.25)) == ["-lr: 1.0e-3              # first step", "+lr: 0.25                # first step"]


def test_a_long_value_keeps_two_blanks_before_its_comment() -> None:
    assert "lr: a-value-that-is-longer-than-the-column  # first step" in changed(
        lr="a-value-that-is-longer-than-the-column"
    )


def test_one_true_and_float_are_three_values() -> None:
    assert "{a: true,  b:" in changed(nested__deep__flow__a=True)
    assert "{a: 1.0,  b:" in changed(nested__deep__flow__a=1.0)


def test_a_flow_list_keeps_the_quotes_of_the_items_that_stay() -> None:
    assert diff(changed(nested__deep__list=["w", "${y}"]))[1] == '+    list: [w, "${y}"]'


def test_a_long_flow_list_is_filled_to_the_width() -> None:
    names = [f"stages/module_{i}.py" for i in range(20)]
    text = changed(nested__deep__list=names)
    assert load(text)["nested"]["deep"]["list"] == names
    assert max(map(len, text.splitlines())) <= WIDTH
    assert sum("module_" in line for line in text.splitlines()) == 4


def test_a_new_key_goes_behind_the_last_of_its_map_and_before_the_next_section() -> None:
    text = changed(nested__more=5)
    assert '    list: [x, "${y}", z]\n  more: 5\n\n# ---- the next section\n' in text


def test_a_key_that_is_gone_takes_its_lines_along() -> None:
    value = load(TEXT)
    del value["nested"]["deep"]
    assert rewrite(TEXT, value) == TEXT[: TEXT.index("  deep:")] + TEXT[TEXT.index("\n# ---- ") :]


def test_a_block_list_stays_one() -> None:
    assert changed(last=["two", "three"]).endswith('last:\n  - "two"\n  - three\n')


def test_a_map_of_maps_is_written_as_a_block() -> None:
    assert "  arms:\n    a: {size: 1}\n    b: {}\n" in changed(nested__arms={"a": {"size": 1}, "b": {}})


@pytest.mark.parametrize("text", ["a: &x 1\nb: *x\n", "a: {n: &x 1}\nb: *x\n"])
def test_an_anchor_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="anchor"):
        rewrite(text, {"a": 2, "b": 3})


def test_text_that_is_no_map_is_refused() -> None:
    with pytest.raises(ValueError, match="no map"):
        rewrite("- 1\n", {"a": 1})


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**12), 10**12),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(string.ascii_letters + string.punctuation + " 019é😀", max_size=8),
    st.sampled_from(
        ["no", "Yes", "null", "1e5", "1.0", "0x1", "a: b", "${x}", "#", "- a", "<|eot|>", "2020-01-01", "~"]
    ),
)


@given(SCALARS)
def test_readers_of_yaml_1_1_and_1_2_agree_on_a_scalar(value: Any) -> None:
    for read in (load, yaml.safe_load):
        found = read(f"key: {scalar(value)}  # comment")["key"]
        assert found == value
        assert type(found) is type(value)


KEYS = st.text(string.ascii_lowercase, min_size=1, max_size=3)
TREES = st.dictionaries(
    KEYS,
    st.recursive(
        SCALARS, lambda inner: st.lists(SCALARS, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=6
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=60)
@given(TREES, TREES, st.sampled_from([False, None]))
def test_any_tree_becomes_any_other_and_the_comments_of_what_is_kept_stay(
    old: Any, new: Any, flow: bool | None
) -> None:
    head = "kept: 1  # a comment that stays\n\n# a head that stays\n"
    written = {"inner": {"z": 1}, **{f"x{key}": value for key, value in old.items()}}
    text = head + yaml.safe_dump(written, default_flow_style=flow, width=999)
    before = load(text)
    assert rewrite(text, before) == text
    after = {"kept": 1, **{f"x{key}": value for key, value in new.items()}}
    edited = rewrite(text, after)
    assert load(edited) == after
    assert {"kept: 1  # a comment that stays", "# a head that stays"} <= set(edited.splitlines())
