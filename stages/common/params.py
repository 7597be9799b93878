"""params.yaml, read and checked one section at a time."""

from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages.common.errors import ParamsError
from stages.common.files import first_line
from stages.common.section import Section

PARAMS_PATH = Path("params.yaml")
SECTIONS = frozenset(
    ("miniature", "sources", "pull", "extract", "prompts", "quality", "dedup", "sample", "arms", "base", "render",
     "sft", "generate", "select_checkpoint", "respond", "opponents", "annotators", "judge", "grade", "score", "report")
)  # fmt: skip


S = TypeVar("S", bound=Section)


def load_params(section: str, model: type[S], *, path: Path = PARAMS_PATH) -> S:
    """Read one section.

    Args:
        section: dotted path of the section, e.g. "quality" or "arms.curated.sample".
        model: what the section must look like.
        path: the parameter file.

    Raises:
        ParamsError: the file or section is missing, or a key is unknown, of the wrong type or out of range.
    """
    value: Any = read_params(path)
    if unknown := [key for key in value if key not in SECTIONS]:
        known = ", ".join(sorted(SECTIONS))
        got = shortened(value[unknown[0]])
        raise ParamsError(
            f"{path}: {unknown[0]}: unknown section, got {got}; remove it, or correct it to one of {known}"
        )
    for depth, key in enumerate(section.split(".")):
        if not isinstance(value, dict) or key not in value:
            got = f"only {', '.join(map(str, value))}" if isinstance(value, dict) and value else shortened(value)
            where = ".".join(section.split(".")[:depth]) or "the top level"
            raise ParamsError(
                f"{path}: {section}: missing, {where} has {got}; add it, profiles/miniature.yaml has an example"
            )
        value = value[key]
    return check_section(value, model, section=section, path=path)


def check_named(name: str, section: str, *, where: str = "", path: Path = PARAMS_PATH) -> None:
    """Refuse a name that is no key of a map of params.yaml: a file of that name would be looked for otherwise.

    A map that is not there at all is passed over: a stage reads it only to refuse, so it is none of its parameters.

    Raises:
        ParamsError: `name`, which stands at `where` (by default the map itself), is none of its keys.
    """
    known = read_params(path).get(section)
    if known is None:
        return
    if not isinstance(known, dict):
        raise ParamsError(f"{path}: {section}: must be a map, got {shortened(known)}; correct it there")
    if name not in known:
        has = ", ".join(map(str, known)) or "nothing"
        told = f"{where}: must be a key of {section}, got {name!r}" if where else f"{section}: no {name!r}"
        raise ParamsError(f"{path}: {told}; {'name one of ' if where else 'it has '}{has}")


def check_section(value: object, model: type[S], *, section: str, path: Path) -> S:
    """Validate plain values of one section.

    Raises:
        ParamsError: naming file, key, value and remedy of the first fault.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        faults = error.errors()
        # A misspelt key is two faults, an unknown one and a missing one: tell the first kind.
        fault = next((fault for fault in faults if fault["type"] == "extra_forbidden"), faults[0])
        key = ".".join([section, *(str(part) for part in fault["loc"])])
        raise ParamsError(f"{path}: {key}: {_rule(fault, model)}") from None


def read_params(path: Path) -> dict[str, Any]:
    """Read a file of parameters: a map of sections.

    Raises:
        ParamsError: the file is missing, is not YAML, or is no map.
    """
    value = read_yaml(path)
    if not isinstance(value, dict):
        raise ParamsError(
            f"{path}: must be a map of sections, got {shortened(value)}; `python -m stages.profile miniature` brings "
            "the defaults back"
        )
    return value


def shortened(value: object) -> str:
    """A value in few enough characters for a sentence.

    >>> shortened(None), shortened("x" * 80)
    ('nothing', "'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...")
    """
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def read_yaml(path: Path) -> Any:  # noqa: ANN401 - YAML is any tree of plain values
    """Read YAML 1.2 (`1e-5` is a number) into plain dicts, lists and scalars.

    Raises:
        ParamsError: the file is missing or is not YAML.
    """
    try:
        return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ParamsError(f"{path}: no such file; run from the top folder of the project") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ParamsError(
            f"{path}: cannot be read, {first_line(error)}; write it in UTF-8 and mend its rights"
        ) from None
    except YAMLError as error:
        raise ParamsError(f"{path}: not YAML, {' '.join(str(error).split())}") from None


def _below(parent: Any, part: str | int) -> Any:  # noqa: ANN401 - a model, or a type that holds some
    """The type of what stands in a section under a key, or None."""
    field = getattr(parent, "model_fields", {}).get(part)
    if field is not None:
        return field.annotation
    among = parent if get_origin(parent) is dict else getattr(parent, "__annotations__", {}).get("__pydantic_extra__")
    return get_args(among)[-1] if get_args(among) else None


def _rule(fault: Any, model: type[Section]) -> str:  # noqa: ANN401 - pydantic's ErrorDetails
    if fault["type"] == "extra_forbidden":
        parent: Any = model
        for part in fault["loc"][:-1]:
            parent = _below(parent, part)
        known = ", ".join(getattr(parent, "model_fields", {})) or "see the comments there"
        return f"unknown key, got {fault['input']!r}; remove it (known here: {known})"
    if fault["type"] == "missing":
        return "missing; add it, profiles/miniature.yaml has an example"
    message = fault["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    silent = isinstance(fault["input"], dict) or fault["type"] == "hidden"  # a whole section, or what may be a secret
    got = "" if silent else f", got {fault['input']!r}"
    return f"must be {message}{got}; correct it there"
