"""profile: Put a named set of values into params.yaml, and show what it changes.

    python -m stages.profile                                   the profiles and their arguments
    python -m stages.profile folders origin=DIR base=DIR       the embedded default with one of them laid over it
    python -m stages.profile miniature                         back to the embedded default

Reads profiles/<name>.yaml, profiles/miniature.yaml, which is a whole params.yaml, and params.yaml; writes params.yaml.
A profile is laid over the miniature, whatever was laid before: of two runs of this command the second counts. Values
that you have changed by hand go back to the miniature's too; each is shown, and `--keep` lays the profile over
params.yaml as it is instead. A profile that says `adds: true` (ablations, dialogues) always does that.
Comments and layout stay. Maps are merged; those named under `replace` are put in whole. `${name}` in a value is filled
with the argument of that name. The result is checked by the parameter models of all stages before anything is written.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from stages import (
    base,
    dedup,
    extract,
    generate,
    grade,
    judge,
    prompts,
    pull,
    quality,
    render,
    report,
    respond,
    respond_opponent,
    sample,
    score,
    select_checkpoint,
    sft,
)
from stages.common.errors import ParamsError
from stages.common.files import write_text
from stages.common.main import run_command
from stages.common.params import PARAMS_PATH, check_section, read_params, read_yaml, shortened
from stages.common.section import Section
from stages.core.formats import Miniature, Source
from stages.core.overlay import ABSENT, at_path, differences, filled, leaves, merged, parts
from stages.core.yaml_edit import rewrite
from stages.runtime.annotators import Annotators

FOLDER = Path("profiles")
WHOLE = "miniature"  # the profile that is a whole params.yaml

_KEYED = ("sources", "arms", "opponents", "annotators")  # maps whose keys name stages, files and folders
_NAME = re.compile(r"[A-Za-z0-9_-]+")

# Every part of params.yaml and what it must look like; `*` is any key.
MODELS: dict[str, type[Section]] = {
    "miniature": Miniature,
    "sources.*": Source,
    "pull": pull.Params,
    "extract": extract.Params,
    "prompts": prompts.Params,
    "quality": quality.Params,
    "dedup": dedup.Params,
    "sample": sample.Params,
    "arms.*.sample": sample.ArmParams,
    "arms.*.sft": sft.ArmParams,
    "base": base.Params,
    "render": render.Params,
    "sft": sft.Params,
    "generate": generate.Params,
    "select_checkpoint": select_checkpoint.Params,
    "respond": respond.Params,
    "opponents.*": respond_opponent.Params,
    "annotators": Annotators,
    "judge": judge.Params,
    "grade": grade.Params,
    "score": score.Params,
    "report": report.Params,
}


class Profile(Section):
    """A profile file."""

    desc: str = Field(min_length=1)  # one line
    adds: bool = Field(default=False)  # whether it is laid over what params.yaml has; else over the miniature
    arguments: dict[str, str] = Field(default={})  # name: what it is
    replace: list[str] = Field(default=[])  # dotted paths of maps that are put in whole
    params: dict[str, Any]


def run(params: Mapping[str, Any], profile: Profile, arguments: Mapping[str, str]) -> dict[str, Any]:
    """Lay a profile over parameters; neither is changed.

    Raises:
        ParamsError: an argument is missing, unknown or not declared, or a path under `replace` has no value.
    """
    check_arguments(profile, arguments)
    values = filled(profile.params, arguments)
    for path in profile.replace:
        if at_path(values, path) is ABSENT:
            raise ParamsError(f"replace: must name values under params, got {path!r}; add it there or take it off")
    return merged(params, values, whole=profile.replace)


def check_arguments(profile: Profile, arguments: Mapping[str, str]) -> None:
    """Hold arguments against those that the profile declares.

    Raises:
        ParamsError: one is missing, empty or unknown.
    """
    known = ", ".join(profile.arguments) or "none"
    for name in arguments:
        if name not in profile.arguments:
            raise ParamsError(f"unknown argument, got {name!r}; it takes {known}")
    for name, text in profile.arguments.items():
        if not arguments.get(name):
            raise ParamsError(f"an argument is missing, got no {name!r}; add {name}=VALUE ({text})")


def check(params: Any, path: Path) -> None:  # noqa: ANN401 - whatever the YAML holds
    """Hold every part of params.yaml against the model of the stage that reads it.

    Raises:
        ParamsError: the first fault; `path` stands for the file in its sentence.
    """
    _check_names(params, path)
    for name, value in leaves(params).items():
        if not any(below(name, pattern) for pattern in MODELS):
            known = ", ".join(MODELS)
            raise ParamsError(f"{path}: {name}: unknown key, got {shortened(value)}; remove it (known: {known})")
    for pattern, model in MODELS.items():
        for section, value in parts(params, pattern):
            if value is ABSENT:
                raise ParamsError(f"{path}: {section}: missing; add it, profiles/miniature.yaml has an example")
            check_section(value, model, section=section, path=path)
    arms = params["arms"]
    answers = {Path(f"data/respond/{arm}.parquet") for arm in arms}
    if (arm := params["judge"]["arm"]) not in arms:
        raise ParamsError(f"{path}: judge.arm: must be a key of arms, got {arm!r}; name one of {', '.join(arms)}")
    for name, opponent in params["opponents"].items():
        if (answered := Path(opponent["path"])).parent == Path("data/respond") and answered not in answers:
            raise ParamsError(
                f"{path}: opponents.{name}.path: must be the answers of an arm, got {opponent['path']!r}; remove the "
                f"opponent, or name one of {', '.join(arms)}"
            )


def _check_names(params: Any, path: Path) -> None:  # noqa: ANN401 - whatever the YAML holds
    for section in _KEYED:
        names = params.get(section) if isinstance(params, dict) else None
        if names == {}:
            raise ParamsError(f"{path}: {section}: must have one key or more, got none; add one")
        for name in names if isinstance(names, dict) else ():
            if not isinstance(name, str) or not _NAME.fullmatch(name):
                raise ParamsError(
                    f"{path}: {section}: keys must be of letters, digits, _ and - only, got {name!r}; rename it"
                )


def touched(pipeline: Mapping[str, Any], names: Collection[str]) -> list[str]:
    """Stages of dvc.yaml that declare one of the changed leaves; what follows from them runs again too."""
    result = []
    for stage, entry in pipeline["stages"].items():
        declared = entry.get("do", entry).get("params", [])
        patterns = [re.sub(r"\$\{[^}]*\}", "*", path) for path in declared]
        if any(below(name, pattern) for pattern in patterns for name in names):
            result.append(stage)
    return result


def read_profile(name: str) -> Profile:
    """Read profiles/<name>.yaml.

    Raises:
        ParamsError: there is none of that name, or it is not a profile.
    """
    path = _path(name)
    value = read_yaml(path)
    if name == WHOLE:
        value = {"desc": "The embedded default: minutes on two cores, no network, GPU or key", "params": value}
    return check_section(value, Profile, section=name, path=path)


def main(name: str | None, arguments: Sequence[str], *, dry_run: bool = False, keep: bool = False) -> None:
    """Put a profile into params.yaml; without a name, list the profiles."""
    if name is None:
        _list()
        return
    path, profile, pairs = _path(name), read_profile(name), _pairs(arguments)
    old = read_yaml(PARAMS_PATH) if name == WHOLE else read_params(PARAMS_PATH)
    try:
        kept = run({} if name == WHOLE else old, profile, pairs)
        new = kept if keep or profile.adds or name == WHOLE else run(read_profile(WHOLE).params, profile, pairs)
    except ParamsError as error:
        raise ParamsError(f"{path}: {error}") from None
    check(new, Path(f"{PARAMS_PATH} with {path}"))
    changed, back = differences(old, new), differences(kept, new)
    print(f"{path}: {len(changed)} values {'would change' if dry_run else 'change'} in {PARAMS_PATH}")
    for leaf, (before, after) in changed.items():
        print(f"  {leaf}: {before} -> {after}{', not of the profile' if leaf in back else ''}")
    if back:
        print(f"{len(back)} of them are not of the profile and go back to the miniature's; --keep would leave them")
    stages = touched(read_yaml(Path("dvc.yaml")), changed)
    print(f"to run again, with all that follows from them: {' '.join(stages) or 'nothing'}")
    if not dry_run:
        write_text(PARAMS_PATH, path.read_text(encoding="utf-8") if name == WHOLE else _rewritten(new))


def below(name: str, pattern: str) -> bool:
    """Whether a dotted path is, or lies below, one that fits the pattern."""
    keys, wanted = name.split("."), pattern.split(".")
    return len(keys) >= len(wanted) and all(w in ("*", k) for w, k in zip(wanted, keys, strict=False))


def _list() -> None:
    for path in sorted(FOLDER.glob("*.yaml")):
        profile = read_profile(path.stem)
        print(f"{path.stem}: {profile.desc}")
        for name, text in profile.arguments.items():
            print(f"    {name}=  {text}")


def _path(name: str) -> Path:
    known = sorted(path.stem for path in FOLDER.glob("*.yaml"))
    if name not in known:
        raise ParamsError(f"{FOLDER}: unknown profile, got {name!r}; there are {', '.join(known) or 'none'}")
    return FOLDER / f"{name}.yaml"


def _pairs(arguments: Sequence[str]) -> dict[str, str]:
    for argument in arguments:
        if "=" not in argument:
            raise ParamsError(f"command line: an argument is NAME=VALUE, got {argument!r}; see --list")
    pairs = (argument.split("=", 1) for argument in arguments)
    return {name: text.rstrip("/") or text for name, text in pairs}  # "${origin}/wikihow" brings its own slash


def _rewritten(new: Mapping[str, Any]) -> str:
    try:
        return rewrite(PARAMS_PATH.read_text(encoding="utf-8"), new)
    except ValueError as error:
        raise ParamsError(f"{PARAMS_PATH}: cannot be edited in place, {error}; write its values out") from None


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m stages.profile", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", nargs="?", help="a file of profiles/ without .yaml; without it they are listed")
    parser.add_argument("arguments", nargs="*", metavar="key=value", help="arguments of the profile")
    parser.add_argument("--dry-run", action="store_true", help="show the changes, write nothing")
    parser.add_argument("--keep", action="store_true", help="lay it over params.yaml as it is, not over the miniature")
    parser.add_argument("--list", action="store_true", help="list the profiles and their arguments")
    given = parser.parse_args()
    chosen = None if given.list else given.name
    raise SystemExit(run_command(lambda: main(chosen, given.arguments, dry_run=given.dry_run, keep=given.keep)))
