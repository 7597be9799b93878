"""Trees of plain values laid over each other: merge, fill in arguments, compare."""

import re
from collections.abc import Collection, Iterator, Mapping
from copy import deepcopy
from typing import Any

from stages.common.errors import ParamsError
from stages.core.yaml_edit import scalar

_ARGUMENT = re.compile(r"\$\{([^}]*)\}")


class _Absent:
    def __str__(self) -> str:
        return "(absent)"


ABSENT = _Absent()  # what a path without a value holds


def merged(old: Mapping[str, Any], new: Mapping[str, Any], *, whole: Collection[str], path: str = "") -> dict[str, Any]:
    """Merge `new` into `old` key by key; neither is changed.

    Args:
        old: a tree.
        new: what is laid over it; a value that is no map takes the place of the old one.
        whole: dotted paths of maps that are not merged but take the place of the old ones.
        path: where the two trees stand, with a dot behind it; empty at the top.

    >>> merged({"a": {"x": 1}, "b": {"x": 1}}, {"a": {"y": 2}, "b": {"y": 2}}, whole=["b"])
    {'a': {'x': 1, 'y': 2}, 'b': {'y': 2}}
    """
    result = deepcopy(dict(old))
    for key, value in new.items():
        at = f"{path}{key}"
        deeper = isinstance(value, Mapping) and isinstance(result.get(key), Mapping) and at not in whole
        result[key] = merged(result[key], value, whole=whole, path=f"{at}.") if deeper else deepcopy(value)
    return result


def filled(value: Any, arguments: Mapping[str, str]) -> Any:  # noqa: ANN401 - a tree of plain values
    """Replace every `${name}` in the strings of a tree, in one pass: what an argument holds is not looked into.

    Raises:
        ParamsError: a name is not among `arguments`.

    >>> filled(["${a}/x", 1], {"a": "${b}"})
    ['${b}/x', 1]
    """
    if isinstance(value, Mapping):
        return {key: filled(item, arguments) for key, item in value.items()}
    if isinstance(value, list):
        return [filled(item, arguments) for item in value]
    if not isinstance(value, str):
        return value
    if unknown := set(_ARGUMENT.findall(value)) - set(arguments):
        raise ParamsError(f"{value!r}: an argument that is not declared, got {min(unknown)!r}; add it to `arguments`")
    return _ARGUMENT.sub(lambda match: arguments[match[1]], value)


def at_path(tree: Any, path: str) -> Any:  # noqa: ANN401 - a tree of plain values
    """The value at a dotted path, or ABSENT."""
    for key in path.split("."):
        tree = tree.get(key, ABSENT) if isinstance(tree, Mapping) else ABSENT
    return tree


def parts(tree: Any, pattern: str, path: str = "") -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - a tree of plain values
    """Every value whose dotted path fits a pattern, with that path; `*` is any key, a missing key gives ABSENT.

    >>> list(parts({"a": {"x": 1, "y": 2}}, "a.*"))
    [('a.x', 1), ('a.y', 2)]
    """
    key, _, rest = pattern.partition(".")
    items = tree if isinstance(tree, Mapping) else {}
    for name in items if key == "*" else [key]:
        here, value = f"{path}{name}", items.get(name, ABSENT)
        yield from parts(value, rest, f"{here}.") if rest else [(here, value)]


def leaves(tree: Any, path: str = "") -> dict[str, Any]:  # noqa: ANN401 - a tree of plain values
    """Every value of a tree by its dotted path; a list, or an empty map, is one value.

    >>> leaves({"a": {"b": 1, "c": [2]}})
    {'a.b': 1, 'a.c': [2]}
    """
    if not isinstance(tree, Mapping) or not tree:
        return {path: tree}
    below = (leaves(value, f"{path}.{key}" if path else str(key)) for key, value in tree.items())
    return {name: leaf for found in below for name, leaf in found.items()}


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """The leaves that differ, as text before and after; first those of `old` in its order, then what is new.

    >>> differences({"a": 1, "b": [1]}, {"b": [1.0], "c": None})
    {'a': ('1', '(absent)'), 'b': ('[1]', '[1.0]'), 'c': ('(absent)', 'null')}
    """
    before, after = leaves(old), leaves(new)
    pairs = {name: (_shown(before.get(name, ABSENT)), _shown(after.get(name, ABSENT))) for name in {**before, **after}}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _shown(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_shown, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {_shown(item)}' for key, item in value.items())}}}"
    return str(value) if value is ABSENT else scalar(value)  # type: ignore[arg-type]
