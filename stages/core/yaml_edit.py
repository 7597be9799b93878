"""Change values inside YAML text and leave every other character of it alone: comments, quotes, layout.

Loading and dumping, even with a round-trip loader, re-aligns columns and moves comments that stand between sections.
Here the text is composed to nodes that know their positions, and only what differs is written anew.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.events import AliasEvent
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

WIDTH = 120  # characters a line
_PLAIN = re.compile(r"[A-Za-z_./][\w./-]*")
_YAML_1_1_WORDS = {"yes", "no", "on", "off", "true", "false", "null"}
_COMMENT = re.compile(r"( +)#")


class _Edit(NamedTuple):
    start: int
    end: int
    text: str


class _Document(NamedTuple):
    text: str
    values: dict[Node, Any]  # what each node loads as

    def source(self, node: Node) -> str:
        return self.text[node.start_mark.index : _content_end(node)]


def rewrite(text: str, value: Mapping[str, Any]) -> str:
    """Edit `text` until it loads as `value`.

    A scalar is replaced in place and the comment behind it keeps its column. A new key goes behind the last of its
    map; a key that is gone takes its lines along. The order of existing keys stays.

    Args:
        text: a YAML document, a map without anchors, tags or literal blocks.
        value: what it shall load as: maps with string keys, lists, strings, numbers, booleans, None.

    Raises:
        ValueError: the text uses a feature of YAML that cannot be edited in place.
    """
    root = YAML(typ="rt", pure=True).compose(text)
    if not isinstance(root, MappingNode):
        raise ValueError("it is no map at the top level")
    if any(isinstance(event, AliasEvent) for event in YAML(typ="rt", pure=True).parse(text)):
        raise ValueError("it has anchors and aliases")
    document = _Document(text, dict(_values(root, _load(text))))
    edited = text
    for edit in sorted(_edits(document, root, value), reverse=True):
        edited = edited[: edit.start] + edit.text + edited[edit.end :]
    if not _same(_load(edited), value):
        raise ValueError("it has a tag or a block of text")
    return edited


def scalar(value: str | float | bool | None) -> str:
    """Write one scalar so that YAML 1.1 and 1.2 readers agree on it: `1.0e-5`, not `1e-05`.

    >>> [scalar(v) for v in (1e-5, True, None, "no", "a/b.c", "<|eot|>")]
    ['1.0e-5', 'true', 'null', '"no"', 'a/b.c', '"<|eot|>"']
    """
    if isinstance(value, str):
        plain = _PLAIN.fullmatch(value) and value.lower() not in _YAML_1_1_WORDS and _load(value) == value
        return value if plain else json.dumps(value, ensure_ascii=False)
    if isinstance(value, float):
        mantissa, e, exponent = repr(value).partition("e")
        return f"{mantissa}{'' if '.' in mantissa else '.0'}e{int(exponent):+d}" if e else mantissa
    return json.dumps(value)


def _load(text: str) -> Any:  # noqa: ANN401 - YAML is any tree of plain values
    return YAML(typ="safe", pure=True).load(text)


def _same(a: object, b: object) -> bool:
    """Equality that tells 1, 1.0 and true apart."""
    return json.dumps(a, sort_keys=True, default=str) == json.dumps(b, sort_keys=True, default=str)


def _values(node: Node, value: Any) -> Iterator[tuple[Node, Any]]:  # noqa: ANN401 - YAML is any tree of plain values
    yield node, value
    if isinstance(node, MappingNode):
        for (_, child), item in zip(node.value, value.values(), strict=True):
            yield from _values(child, item)
    elif isinstance(node, SequenceNode):
        for child, item in zip(node.value, value, strict=True):
            yield from _values(child, item)


def _edits(document: _Document, node: Node, value: object) -> list[_Edit]:
    """The edits that make `node` load as `value`."""
    if _same(document.values[node], value):
        return []
    if isinstance(node, MappingNode) and isinstance(value, Mapping) and node.value and value:
        if {key.value for key, _ in node.value} == set(value):
            return [edit for key, child in node.value for edit in _edits(document, child, value[key.value])]
        if not node.flow_style:
            return _block_map_edits(document, node, value)
    if isinstance(node, SequenceNode) and not node.flow_style and isinstance(value, list) and value:
        lines = f"\n{' ' * node.start_mark.column}".join(f"- {item}" for item in _items(document, node, value))
        return [_Edit(node.start_mark.index, _content_end(node), lines)]
    start, end = node.start_mark.index, _content_end(node)
    return [
        _beside_comment(document.text, _Edit(start, end, _flow(document, node, value, column=node.start_mark.column)))
    ]


def _block_map_edits(document: _Document, node: MappingNode, value: Mapping[str, Any]) -> list[_Edit]:
    text = document.text
    old = {key.value: (key, child) for key, child in node.value}
    edits = [edit for name, (_, child) in old.items() if name in value for edit in _edits(document, child, value[name])]
    column = node.start_mark.column
    new = [f"{' ' * column}{_entry(name, value[name], column)}\n" for name in value if name not in old]
    kept = [child for name, (_, child) in old.items() if name in value]
    for name, (key, child) in old.items():
        if name not in value:
            start = text.rfind("\n", 0, key.start_mark.index) + 1
            edits.append(_Edit(start, _line_end(text, child), ""))
    at = _line_end(text, kept[-1]) if kept else _line_end(text, node)
    if new and not text[:at].endswith("\n"):
        new[0] = f"\n{new[0]}"
    return [*edits, _Edit(at, at, "".join(new))]


def _entry(name: str, value: object, column: int) -> str:
    """`name: value` in a block map: a map of maps as a block, all else as flow."""
    if isinstance(value, Mapping) and any(isinstance(item, Mapping) for item in value.values()):
        inner = column + 2
        return f"{scalar(name)}:" + "".join(f"\n{' ' * inner}{_entry(k, v, inner)}" for k, v in value.items())
    head = f"{scalar(name)}: "
    return head + _flow(None, None, value, column=column + len(head))


def _flow(document: _Document | None, node: Node | None, value: object, *, column: int) -> str:
    """Flow text of `value`; items that `node` holds already keep the characters they have there."""
    if isinstance(value, Mapping):
        old = {key.value: child for key, child in node.value} if isinstance(node, MappingNode) else {}
        items = [f"{scalar(k)}: {_item(document, [old[k]] if k in old else [], v)}" for k, v in value.items()]
        return _wrapped(items, "{}", column)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return _wrapped(_items(document, node, value), "[]", column)
    return scalar(value)  # type: ignore[arg-type]


def _items(document: _Document | None, node: Node | None, values: Sequence[object]) -> list[str]:
    old = node.value if isinstance(node, SequenceNode) else []
    return [_item(document, old, value) for value in values]


def _item(document: _Document | None, old: Sequence[Node], value: object) -> str:
    """The text of one item: that of the first old one which is equal, else its flow text."""
    for node in old:
        if document is not None and _same(document.values[node], value):
            return document.source(node)
    return _flow(None, None, value, column=0)


def _wrapped(items: list[str], brackets: str, column: int) -> str:
    """Items between brackets, filled to WIDTH; lines after the first stand under the first item."""
    lines, room = [""], WIDTH - column - 2
    for item in items:
        if lines[-1] and len(lines[-1]) + len(item) + 2 > room:
            lines.append("")
        lines[-1] += f"{', ' if lines[-1] else ''}{item}"
    return brackets[0] + f",\n{' ' * (column + 1)}".join(lines) + brackets[1]


def _beside_comment(text: str, edit: _Edit) -> _Edit:
    """Widen an edit over the blanks before a comment on the same line, so that the comment keeps its column."""
    blanks = _COMMENT.match(text, edit.end)
    if not blanks or "\n" in edit.text:
        return edit
    room = edit.end - edit.start + len(blanks[1])
    return _Edit(edit.start, edit.end + len(blanks[1]), edit.text.ljust(max(room, len(edit.text) + 2)))


def _content_end(node: Node) -> int:
    """Where the node's last character is; a block's own end mark lies behind the comments that follow it."""
    if isinstance(node, ScalarNode) or node.flow_style or not node.value:
        return int(node.end_mark.index)
    last = node.value[-1]
    return _content_end(last[1] if isinstance(node, MappingNode) else last)


def _line_end(text: str, node: Node) -> int:
    newline = text.find("\n", _content_end(node))
    return len(text) if newline < 0 else newline + 1
