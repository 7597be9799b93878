"""closure: Compare the code that each stage depends on with the code that it imports.

DVC follows no imports. A stage whose `deps` lack a module keeps its old outputs when that module changes; one whose
`deps` hold too much runs again for nothing. So the code deps of a stage are exactly its module, every module of ours
that it imports, directly or not, and the files under stages/ that one of them names (templates). An `__init__` that
holds a docstring alone is no code. A folder of which a stage needs every file is one dep, the folder: DVC's time grows
with the number of deps. They stand sorted before the data deps.

A dep with a placeholder, such as stages/sources/${item.format}.py, stands for one module of its folder, chosen by a
parameter. What any of them imports counts, the others themselves do not.

Reads dvc.yaml and stages/. Prints a line for each stage that differs and exits with 1; with --write it puts the
lists in dvc.yaml right instead.
"""

from __future__ import annotations

import argparse
import ast
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import grimp

from stages.common.errors import InputError
from stages.common.files import write_text
from stages.common.main import run_command
from stages.common.params import read_yaml
from stages.core.yaml_edit import rewrite

_PLACEHOLDER = re.compile(r"\$\{[^}]*\}")


class Difference(NamedTuple):
    """The deps of one stage as they are and as they should be."""

    stage: str
    found: list[str]
    expected: list[str]

    def __str__(self) -> str:
        """One line: what is missing, what is too much, or that only the order is wrong."""
        missing = [dep for dep in self.expected if dep not in self.found]
        surplus = [dep for dep in self.found if dep not in self.expected]
        parts = [f"{word} {', '.join(deps)}" for word, deps in (("lacks", missing), ("needs no", surplus)) if deps]
        return f"{self.stage}: {'; '.join(parts) or 'code deps stand sorted before data deps'}"


def run(pipeline: Mapping[str, Any], *, package: str = "stages") -> list[Difference]:
    """Compare every stage of dvc.yaml with the import graph of the package in the working directory.

    Args:
        pipeline: dvc.yaml, loaded.
        package: the one that holds a module for each stage.

    Raises:
        InputError: a stage has no module.
    """
    modules = _modules(package)
    differences = []
    for stage in pipeline["stages"]:
        found = list(definition(pipeline, stage).get("deps", []))
        expected = _expected(stage, found, modules, package=package)
        if found != expected:
            differences.append(Difference(stage, found, expected))
    return differences


def definition(pipeline: Mapping[str, Any], stage: str) -> dict[str, Any]:
    """The part of dvc.yaml that holds a stage's cmd and deps, with or without foreach."""
    entry: dict[str, Any] = pipeline["stages"][stage]
    inner: dict[str, Any] = entry.get("do", entry)
    return inner


def main(*, write: bool) -> None:
    """Report the differences, or write them away."""
    path = Path("dvc.yaml")
    pipeline = read_yaml(path)
    differences = run(pipeline)
    if write and differences:
        for difference in differences:
            definition(pipeline, difference.stage)["deps"] = difference.expected
        write_text(path, rewrite(path.read_text(encoding="utf-8"), pipeline))
    for difference in differences:
        print(f"{path}: {difference}")
    if differences and not write:
        raise SystemExit(1)


def _expected(stage: str, found: Iterable[str], modules: Mapping[str, _Module], *, package: str) -> list[str]:
    name = f"{package}.{stage}"
    if name not in modules:
        raise InputError(f"dvc.yaml: stage {stage!r} needs {package}/{stage}.py, got no such file; write it")
    code = [dep for dep in found if dep.startswith(f"{package}/")]
    families = [dep for dep in code if _PLACEHOLDER.search(dep)]
    chosen = {member for dep in families for member in _family(dep, modules)}
    needed = _closure({name, *chosen}, modules) - chosen
    files = {modules[module].path for module in needed if modules[module].is_code}
    files |= {file for module in needed | chosen for file in modules[module].files}
    return [*sorted({*_folded(files, modules, package=package), *families}), *(dep for dep in found if dep not in code)]


def _folded(files: set[str], modules: Mapping[str, _Module], *, package: str) -> set[str]:
    """Files, with a folder in place of those that are all that it holds."""
    idle = {module.path for module in modules.values() if not module.is_code}
    folded = set(files)
    for folder in sorted({str(Path(file).parent) for file in files}):
        held = {file.as_posix() for file in _files(folder)} - idle
        if folder != package and len(held) > 1 and held <= files:
            folded = {file for file in folded if not file.startswith(f"{folder}/")} | {folder}
    return folded


def _files(folder: str) -> list[Path]:
    """The files of a folder and those below it, without what Python compiled."""
    return [file for file in Path(folder).rglob("*") if file.is_file() and file.suffix != ".pyc"]


class _Module(NamedTuple):
    path: str  # relative to the root, with "/"
    imports: frozenset[str]
    files: frozenset[str]  # files of the package, no modules, that it names
    is_code: bool  # more than a package's docstring


def _modules(package: str) -> dict[str, _Module]:
    graph = grimp.build_graph(package, exclude_type_checking_imports=True, cache_dir=None)
    others = [file for file in _files(package) if file.suffix != ".py"]
    modules = {}
    for module in graph.modules:
        path = _path_of(module)
        tree = ast.parse(Path(path).read_text(encoding="utf-8"))
        strings = _strings(tree)
        files = frozenset(file.as_posix() for file in others if file.name in strings)
        is_code = Path(path).name != "__init__.py" or len(tree.body) > (ast.get_docstring(tree) is not None)
        modules[module] = _Module(path, frozenset(graph.find_modules_directly_imported_by(module)), files, is_code)
    return modules


def _path_of(module: str) -> str:
    path = module.replace(".", "/")
    return f"{path}/__init__.py" if Path(path).is_dir() else f"{path}.py"


def _closure(start: set[str], modules: Mapping[str, _Module]) -> set[str]:
    """Modules that run when those of `start` are imported, the packages around them included."""
    seen: set[str] = set()
    todo = list(start)
    while todo:
        module = todo.pop()
        if module not in seen:
            seen.add(module)
            todo += modules[module].imports
            todo += [module.rpartition(".")[0]] if "." in module else []
    return seen


def _family(dep: str, modules: Mapping[str, _Module]) -> set[str]:
    """The modules that a placeholder can name: those of its pattern that no other of them imports."""
    pattern = "[^/]+".join(map(re.escape, _PLACEHOLDER.split(dep)))
    members = {name for name, module in modules.items() if re.fullmatch(pattern, module.path)}
    members = {name for name in members if not modules[name].path.endswith("/__init__.py")}
    shared = {other for name in members for other in modules[name].imports}
    return members - shared


def _strings(tree: ast.Module) -> set[str]:
    """The strings in a module, of those that look like paths the last part."""
    constants = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return {value.rpartition("/")[2] for value in constants if isinstance(value, str)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m stages.closure", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="put the lists in dvc.yaml right")
    arguments = parser.parse_args()
    raise SystemExit(run_command(lambda: main(write=arguments.write)))
