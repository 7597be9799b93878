import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from stages import closure
from stages.common.errors import InputError
from stages.core.yaml_edit import rewrite
from tests.workspace import Workspace, read_yaml

MODULES = {
    "toy/__init__.py": '"""Nothing but words."""',
    "toy/core/__init__.py": "",
    "toy/core/a.py": "from toy.core import b\n",
    "toy/core/b.py": "",
    "toy/core/unused.py": "",
    "toy/core/types_only.py": "",
    "toy/sources/__init__.py": "import toy.core\n",
    "toy/sources/csv_dump.py": "import toy.sources.shared\nimport toy.core.b\n",
    "toy/sources/xml_dump.py": "",
    "toy/sources/shared.py": "",
    "toy/pair/__init__.py": '"""Two that go together."""',
    "toy/pair/left.py": "from toy.pair import right\n",
    "toy/pair/right.py": "",
    "toy/templates/page.html": "<p>",
    "toy/templates/other.html": "<p>",
    "toy/draw.py": (
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import toy.core.types_only\n"
        "def main():\n    import toy.core.a\n"
    ),
    "toy/show.py": 'from pathlib import Path\nPAGE = Path("toy/templates") / "page.html"\n',
    "toy/read.py": "",
    "toy/both.py": "import toy.pair.left\n",
    "toy/one.py": "import toy.pair.right\n",
}
DEPS = {
    "draw": ["toy/core/a.py", "toy/core/b.py", "toy/draw.py", "data/x"],
    "show": ["toy/show.py", "toy/templates/page.html"],
    "read": [
        "toy/core/b.py", "toy/read.py",
        "toy/sources/${item.format}.py", "toy/sources/__init__.py", "toy/sources/shared.py", "data/raw",
    ],
    "both": ["toy/both.py", "toy/pair"],
    "one": ["toy/one.py", "toy/pair/right.py"],
}  # fmt: skip


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package of three stages, in the working directory."""
    for name, text in MODULES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()


def lines(deps: Mapping[str, list[str]]) -> list[str]:
    pipeline = {"stages": {stage: {"deps": found} for stage, found in deps.items()}}
    return [str(difference) for difference in closure.run(pipeline, package="toy")]


def test_right_deps_make_no_difference() -> None:
    assert lines(DEPS) == []


@pytest.mark.parametrize(("stage", "dep"), [(s, dep) for s, deps in DEPS.items() for dep in deps if "$" not in dep])
def test_a_missing_code_dep_is_named(stage: str, dep: str) -> None:
    found = lines({stage: [other for other in DEPS[stage] if other != dep]})
    assert found == ([f"{stage}: lacks {dep}"] if dep.startswith("toy/") else [])


@pytest.mark.parametrize(
    "dep",
    [
        "toy/core/unused.py",
        "toy/core/types_only.py",
        "toy/show.py",
        "toy/templates/other.html",
        "toy/core",
        "toy/gone.py",
    ],
)
def test_a_superfluous_code_dep_is_named(dep: str) -> None:
    assert lines({"draw": [dep, *DEPS["draw"]]}) == [f"draw: needs no {dep}"]


def test_a_folder_that_holds_more_than_is_needed_is_not_folded(tmp_path: Path) -> None:
    assert lines({"both": DEPS["both"]}) == []
    (tmp_path / "toy/pair/spare.txt").write_text("for nobody")
    assert lines({"both": DEPS["both"]}) == ["both: lacks toy/pair/left.py, toy/pair/right.py; needs no toy/pair"]


def test_a_package_that_does_something_when_it_is_imported_is_code(tmp_path: Path) -> None:
    (tmp_path / "toy/pair/__init__.py").write_text('"""Words."""\nX = 1\n')
    assert lines({"one": DEPS["one"]}) == ["one: lacks toy/pair/__init__.py"]


def test_a_family_excludes_its_members_but_not_what_they_import() -> None:
    members = ["toy/sources/csv_dump.py", "toy/sources/xml_dump.py"]
    assert lines({"read": [*members, *DEPS["read"]]}) == [f"read: needs no {', '.join(members)}"]


def test_code_stands_sorted_before_data() -> None:
    assert lines({"draw": ["data/x", *DEPS["draw"][:-1]]}) == ["draw: code deps stand sorted before data deps"]


def test_a_stage_of_foreach_is_looked_into() -> None:
    pipeline: dict[str, Any] = {"stages": {"draw": {"foreach": ["x"], "do": {"deps": DEPS["draw"][1:]}}}}
    assert [str(d) for d in closure.run(pipeline, package="toy")] == ["draw: lacks toy/core/a.py"]


def test_a_stage_without_a_module_is_an_error() -> None:
    with pytest.raises(InputError, match=r"^dvc.yaml: stage 'gone' needs toy/gone.py"):
        lines({"gone": []})


def test_the_command_reports_with_status_1_and_mends_with_write(fresh: Workspace) -> None:
    path = fresh.root / "dvc.yaml"
    text = path.read_text()
    pipeline = read_yaml(path)
    closure.definition(pipeline, "pull")["deps"].remove("stages/pull.py")
    closure.definition(pipeline, "score")["deps"].insert(0, "stages/pull.py")
    path.write_text(rewrite(text, pipeline))
    found = fresh.run("python", "-m", "stages.closure", ok=False)
    assert (found.returncode, found.stdout.splitlines()) == (
        1,
        ["dvc.yaml: pull: lacks stages/pull.py", "dvc.yaml: score: needs no stages/pull.py"],
    )
    assert fresh.run("python", "-m", "stages.closure", "--write").stdout == found.stdout
    assert path.read_text() == text
    assert fresh.run("python", "-m", "stages.closure").stdout == ""
