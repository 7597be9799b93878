"""The graph of dvc.yaml says what the code does: parameters, dependencies, names, layers."""

from __future__ import annotations

import ast
import importlib
import itertools
import json
import re
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import pytest
from dvc.repo import Repo
from dvc.stage import PipelineStage
from pydantic import BaseModel
from ruamel.yaml import YAML

from stages import base, closure, sample, sft
from stages.common.section import Named, Section
from stages.core.arms import Arm
from stages.core.draw_measures import Measures
from stages.core.formats import Miniature, Source
from stages.core.overlay import at_path, leaves, parts
from stages.core.strata import GroupDraw
from stages.core.strategies import Deita
from stages.runtime.encoder import Vectors
from tests.workspace import ROOT, Workspace, read_yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep:DeprecationWarning")  # of DVC's own

PIPELINE = read_yaml(ROOT / "dvc.yaml")
STAGES = list(PIPELINE["stages"])
PARAMS = read_yaml(ROOT / "profiles/miniature.yaml")
COMMANDS = ("trace", "profile", "closure", "agreement", "compare", "plan")  # modules that a person runs; no stages
OF_ARM = ("sample", "render", "sft", "generate", "select_checkpoint", "respond", "grade")

# Which stages read a parameter, by leaf; `*` is any key. What follows from them is FOLLOWERS' part.
READERS = {
    "miniature.*": "pull@stack_exchange pull@wikihow pull@reddit pull@natural_instructions pull@authored base",
    "sources.stack_exchange.format": "pull@stack_exchange extract@stack_exchange prompts quality",
    "sources.wikihow.format": "pull@wikihow extract@wikihow prompts quality",
    "sources.reddit.format": "pull@reddit extract@reddit prompts quality",
    "sources.natural_instructions.format": ("pull@natural_instructions extract@natural_instructions prompts quality"),
    "sources.authored.format": "pull@authored extract@authored prompts quality",
    "sources.stack_exchange.origin": "pull@stack_exchange prompts quality",
    "sources.wikihow.origin": "pull@wikihow prompts quality",
    "sources.reddit.origin": "pull@reddit prompts quality",
    "sources.natural_instructions.origin": "pull@natural_instructions prompts quality",
    "sources.authored.origin": "pull@authored prompts quality",
    "pull.*": "pull@stack_exchange pull@wikihow pull@reddit pull@natural_instructions pull@authored",
    "extract.*": (
        "extract@stack_exchange extract@wikihow extract@reddit extract@natural_instructions extract@authored"
    ),
    "prompts.*": "prompts",
    "quality.*": "quality",
    "dedup.*": "dedup",
    "sample.*": "sample@curated sample@bulk",
    "arms.curated.sample.*": "sample@curated score report",
    "arms.curated.sft.*": "sft@curated score report",
    "arms.bulk.sample.*": "sample@bulk score report",
    "arms.bulk.sft.*": "sft@bulk score report",
    "base.*": "base",
    "render.eot": "render@curated render@bulk sft@curated sft@bulk generate@curated generate@bulk",
    "render.max_tokens": "render@curated render@bulk generate@curated generate@bulk",
    "render.loss_on": "render@curated render@bulk generate@curated generate@bulk",
    "sft.*": "sft@curated sft@bulk",
    "generate.*": "generate@curated generate@bulk",
    "select_checkpoint.*": "select_checkpoint@curated select_checkpoint@bulk",
    "respond.*": "respond@curated respond@bulk respond_opponent@base respond_opponent@bulk",
    "opponents.base.*": "respond_opponent@base score report",
    "opponents.bulk.*": "respond_opponent@bulk score report",
    "annotators.*": (
        "select_checkpoint@curated select_checkpoint@bulk judge@base judge@bulk grade@curated grade@bulk score"
    ),
    "judge.arm": "judge@base judge@bulk score report",
    "judge.annotators": "judge@base judge@bulk report",
    "grade.*": "grade@curated grade@bulk",
    "score.confidence": "score report",
    "score.*": "score",
    "report.*": "report",
}

# What must run again behind a stage, without keys: the stages that read what it writes.
FOLLOWERS = {
    "pull": "extract",
    "extract": "prompts quality",
    "prompts": "dedup generate select_checkpoint respond respond_opponent judge grade score report",
    "quality": "dedup report",
    "dedup": "sample report",
    "sample": "render generate report",
    "base": "render sft respond_opponent",
    "render": "sft report",
    "sft": "generate select_checkpoint report",
    "generate": "select_checkpoint score",
    "select_checkpoint": "respond score",
    "respond": "respond_opponent judge grade score report",
    "respond_opponent": "judge score report",
    "judge": "score report",
    "grade": "score",
    "score": "report",
    "report": "",
}


def definition(stage: str) -> dict[str, Any]:
    return closure.definition(PIPELINE, stage)


def module(stage: str) -> Any:
    return importlib.import_module(f"stages.{stage}")


def fits(name: str, pattern: str) -> bool:
    """Whether a dotted path is, or lies below, one that fits the pattern."""
    wanted = "[^.]+".join(map(re.escape, pattern.removesuffix(".*").split("*")))
    return re.fullmatch(rf"{wanted}(\..+)?", name) is not None


# ---------------------------------------------------------------------------------------------------------- parameters


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace whose dvc.lock holds every stage as if it had run: outputs are stand-ins, nothing reads them."""
    workspace = Workspace.fresh(tmp_path_factory.mktemp("locked") / "project")
    with Repo(str(workspace.root)) as repo:
        for out in (out for stage in repo.index.stages for out in stage.outs):
            path = Path(out.fs_path)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{path}\n")
    workspace.run("dvc", "commit", "--force")
    return workspace


def another(name: str, value: object) -> object:
    """A different value, of a kind that dvc.yaml can still be resolved with."""
    if name == "judge.arm":
        return "bulk"
    if isinstance(value, list):
        return [*value, value[0]]
    if isinstance(value, bool) or value is None:
        return not value
    return f"{value}_" if isinstance(value, str) else value + 1  # type: ignore[operator]


def row_of(name: str) -> str | None:
    """The first row of READERS that a leaf fits."""
    return next((row for row in READERS if fits(name, row)), None)


def leaves_of(row: str) -> list[str]:
    return [name for name in leaves(PARAMS) if row_of(name) == row]


def test_every_leaf_has_a_row_in_the_table() -> None:
    assert [name for name in leaves(PARAMS) if row_of(name) is None] == []


def test_every_row_of_the_table_has_a_leaf() -> None:
    assert [row for row in READERS if not leaves_of(row)] == []


def bare_leaves(text: str) -> list[str]:
    """The leaves of params.yaml that no comment describes: on their line or above, or at a map that holds them."""
    lines = text.splitlines()

    def described(at: int) -> bool:
        above = itertools.takewhile(lambda line: line.lstrip().startswith("#"), reversed(lines[:at]))
        return bool(re.search(r"\s#\s", lines[at])) or any(not re.match(r"# -{9,} ", line) for line in above)

    def walk(tree: Any, path: str, known: bool) -> Iterator[str]:
        for key, value in tree.items():
            says = known or described(tree.lc.key(key)[0])
            if isinstance(value, dict) and value:
                yield from walk(value, f"{path}{key}.", says)
            elif not says:
                yield f"{path}{key}"

    return list(walk(YAML().load(text), "", False))


def test_a_comment_describes_every_leaf() -> None:
    text = (ROOT / "params.yaml").read_text()
    assert bare_leaves(text) == []
    assert bare_leaves(re.sub(r" *# of the resampling", "", text)) == ["score.seed"]


# What a stage takes with a section of which it needs other keys, and does not read.
TAKEN_ALONG = {
    "sample": {"Arm.sample", "Arm.sft"}, "sft": {"Arm.sample", "Arm.sft"}, "score": {"Arm.sample", "Arm.sft"},
    "report": {"Arm.sample", "Arm.sft"},
    "extract": {"Source.origin", "Source.only"},
    "generate": {"ChatFormat.eot"},  # the tuned tokenizer carries it
}  # fmt: skip


def models_of(root: type[BaseModel]) -> set[type[BaseModel]]:
    """A parameter model and all that stand in it, in lists, maps and unions too."""
    found, todo = set(), [root]
    while todo:
        model = todo.pop()
        if model not in found:
            found.add(model)
            hints = [field.annotation for field in model.model_fields.values()]
            todo += [kind for hint in hints for kind in types_in(hint) if issubclass(kind, BaseModel)]
    return found


def types_in(hint: Any) -> Iterator[type]:
    if isinstance(hint, type) and not get_args(hint):
        yield hint
    for part in get_args(hint):
        yield from types_in(part)


def attributes_read(stage: str) -> set[str]:
    """Names that the code deps of a stage read as attributes."""
    deps = [re.sub(r"\$\{[^}]*\}", "*", dep) for dep in definition(stage)["deps"] if dep.startswith("stages/")]
    found = [path for dep in deps for path in ROOT.glob(dep)]
    files = [file for path in found for file in (path.rglob("*.py") if path.is_dir() else [path])]
    trees = [ast.parse(file.read_text()) for file in files if file.suffix == ".py"]
    return {
        node.attr
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
    }


@pytest.mark.parametrize("stage", STAGES)
def test_no_parameter_is_dead(stage: str) -> None:
    """Every field of every parameter model of a stage, nested ones too, is read somewhere in its code."""
    loaded = [
        value
        for value in vars(module(stage)).values()
        if isinstance(value, type) and issubclass(value, Section) and value not in (Section, Named)
    ]
    models = {model for root in loaded for model in models_of(root)}
    read = attributes_read(stage)
    dead = {f"{model.__name__}.{name}" for model in models for name in model.model_fields if name not in read}
    assert dead - TAKEN_ALONG.get(stage, set()) == set()
    assert models


# Maps and nested sections, and the model of each; a `*` stands for any key.
NESTED = {
    "miniature": Miniature, "sources.*": Source, "base.pretrain": base.Pretrain, "arms.*": Arm,
    "arms.*.sample": sample.ArmParams, "arms.*.sft": sft.ArmParams, "sample.groups.*": GroupDraw,
    "sample.vectors": Vectors, "sample.deita": Deita, "sample.measures": Measures,
}  # fmt: skip


@pytest.mark.parametrize("pattern", NESTED)
def test_the_model_of_a_nested_section_has_its_keys(pattern: str) -> None:
    fields = NESTED[pattern].model_fields
    needed = {name for name, field in fields.items() if field.is_required()}
    for name, value in parts(PARAMS, pattern):
        assert needed <= set(value) <= set(fields), name
    assert {key for _, value in parts(PARAMS, pattern) for key in value} == set(fields) - LEFT_TO_PROFILES


LEFT_TO_PROFILES = {"only"}  # `sources.*.only` narrows a large upstream; the miniature is taken whole


def declared(stage: str) -> set[str]:
    """The parameters that a stage declares, `*` for its key."""
    return {re.sub(r"\$\{[^}]*\}", "*", path) for path in definition(stage).get("params", [])}


def declared_over(name: str) -> set[tuple[str, str]]:
    """The stages whose declared parameters hold a leaf; all that DVC looks at, but for what dvc.yaml interpolates."""
    return {(stage, path) for stage in STAGES for path in declared(stage) if fits(name, path)}


INTERPOLATED = [name for name in leaves(PARAMS) if re.search(r"\.(format|pool|path)$|^judge\.arm$", name)]


def test_the_leaves_that_dvc_yaml_interpolates_are_known() -> None:
    used = set(re.findall(r"\$\{(?:item\.(?:\w+\.)?)?([\w.]+)\}", (ROOT / "dvc.yaml").read_text()))
    assert used == {"key", "sources", "arms", "opponents", "format", "pool", "path", "judge.arm"}


@pytest.mark.parametrize("row", READERS)
def test_the_leaves_of_a_row_are_declared_alike(row: str) -> None:
    first, *others = [declared_over(name) for name in leaves_of(row)]
    assert [other for other in others if other != first] == []


@pytest.mark.usefixtures("parsed_once")
def test_a_changed_leaf_reruns_the_stages_of_its_row(locked: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one leaf for each row, and of every leaf that dvc.yaml interpolates."""
    monkeypatch.chdir(locked.root)
    path = Path("params.yaml")
    text = path.read_text()
    found, expected = {}, {}
    for name in dict.fromkeys([*(leaves_of(row)[0] for row in READERS), *INTERPOLATED]):
        changed = deepcopy(PARAMS)
        above, _, key = name.rpartition(".")
        at_path(changed, above)[key] = another(name, leaves(PARAMS)[name])
        path.write_text(json.dumps(changed))
        with Repo() as repo:
            found[name] = sorted(repo.status())
        expected[name] = sorted(READERS[row_of(name) or ""].split())
    path.write_text(text)
    assert found == expected


def test_what_follows_from_a_stage(locked: Workspace) -> None:
    found: dict[str, set[str]] = {stage: set() for stage in STAGES}
    with Repo(str(locked.root)) as repo:
        for follower, followed in repo.index.graph.edges():
            found[word(followed)].add(word(follower))
    assert {stage: " ".join(sorted(names, key=STAGES.index)) for stage, names in found.items()} == FOLLOWERS


def word(stage: PipelineStage) -> str:
    return stage.name.partition("@")[0]


def test_an_arm_does_not_rerun_another_arm(locked: Workspace) -> None:
    with Repo(str(locked.root)) as repo:
        edges = [(follower.name, followed.name) for follower, followed in repo.index.graph.edges()]
    across = [
        (a, b) for a, b in edges if a.partition("@")[0] in OF_ARM and a.endswith("curated") and b.endswith("bulk")
    ]
    assert across == []


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_declares_the_parameters_that_it_loads_and_no_others(stage: str) -> None:
    declared = {re.sub(r"\$\{[^}]*\}", "*", path) for path in definition(stage).get("params", [])}
    loaded = set(loaded_sections(ROOT / f"stages/{stage}.py"))
    unseen = {path for path in declared if not any(fits(path, section) or fits(section, path) for section in loaded)}
    undeclared = {
        path for path in loaded if not any(fits(path, section) or fits(section, path) for section in declared)
    }
    assert (unseen, undeclared) == (set(), set())


def loaded_sections(path: Path) -> Iterator[str]:
    """What load_params is called with, `*` for what is filled in, and the keys taken from read_yaml(PARAMS_PATH)."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "load_params":
            yield pattern_of(node.args[0])
    for keys in re.findall(r"read_yaml\(PARAMS_PATH\)\[([^\]]*)\]((?:.*\bin \([^)]*\))?)", path.read_text()):
        yield from re.findall(r'"(\w+)"', "".join(keys))


def pattern_of(node: ast.expr) -> str:
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "*" for part in node.values)
    assert isinstance(node, ast.Constant), "load_params is called with a string that can be read here"
    return str(node.value)


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage in PARAMS])
def test_the_model_of_a_stage_has_the_keys_of_its_section(stage: str) -> None:
    fields = module(stage).Params.model_fields
    assert set(fields) == set(PARAMS[stage])
    assert [name for name, field in fields.items() if not field.is_required()] == []


# -------------------------------------------------------------------------------------------------------- dependencies


def test_code_deps_are_the_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert [str(difference) for difference in closure.run(PIPELINE)] == []


def test_every_file_beside_the_code_is_a_dep_of_a_stage() -> None:
    deps = {dep for stage in STAGES for dep in definition(stage).get("deps", [])}
    files = {
        file.relative_to(ROOT).as_posix()
        for file in (ROOT / "stages").rglob("*")
        if file.is_file() and file.suffix != ".py" and file.parent.name != "__pycache__"
    }
    assert {file for file in files if not deps & {file, *map(str, Path(file).parents)}} == set()


@pytest.mark.parametrize("stage", STAGES)
def test_no_dep_is_all_code_or_a_glob(stage: str) -> None:
    code = [dep for dep in definition(stage)["deps"] if dep.startswith("stages")]
    assert [dep for dep in code if not dep.startswith("stages/") or "*" in dep] == []


EXPENSIVE = (
    "pull",
    "extract",
    "base",
    "sft",
    "generate",
    "select_checkpoint",
    "respond",
    "respond_opponent",
    "judge",
    "grade",
)


@pytest.mark.parametrize("stage", EXPENSIVE)
def test_expensive_stages_have_only_cached_outs_that_are_removed_before_a_run(stage: str) -> None:
    entry = definition(stage)
    assert all(isinstance(out, str) for out in entry["outs"])
    assert not {"metrics", "plots", "always_changed"} & set(entry)


def test_under_40_stages(locked: Workspace) -> None:
    with Repo(str(locked.root)) as repo:
        assert len(repo.index.stages) < 40


# --------------------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize("stage", STAGES)
def test_one_word_in_seven_places(stage: str) -> None:
    entry = definition(stage)
    outs = [name_of(out) for kind in ("outs", "metrics", "plots") for out in entry.get(kind, [])]
    assert re.fullmatch(rf"python -m stages\.{stage}( \$\{{key\}})?", entry["cmd"])
    assert module(stage).__doc__.startswith(f"{stage}: ")
    assert (ROOT / f"tests/test_{stage}.py").is_file()
    assert outs
    assert [out for out in outs if not re.match(OUTS.get(stage, rf"(data|models|metrics)/{stage}([/.]|$)"), out)] == []


# Where the out has a name of its own in DESIGN: selected models, and the page to read.
OUTS = {
    "select_checkpoint": r"models/selected/|data/select_checkpoint/",
    "report": r"reports/report\.html$|metrics/report/",
}


def name_of(out: Any) -> str:
    return out if isinstance(out, str) else next(iter(out))


def test_sections_are_stages_or_maps_or_the_world() -> None:
    assert set(PARAMS) - set(STAGES) == {"miniature", "sources", "arms", "opponents", "annotators"}


def test_modules_are_stages_or_commands() -> None:
    modules = {path.stem for path in (ROOT / "stages").glob("*.py")} - {"__init__", "schema", "errors"}
    assert modules == {*STAGES, *COMMANDS}


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_says_what_it_does(stage: str) -> None:
    assert re.fullmatch(r"[A-Z].{10,100}[^.]", definition(stage)["desc"])


# -------------------------------------------------------------------------------------------------------------- layers


def test_layers() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


def test_starting_a_stage_imports_no_heavy_library() -> None:
    """A data stage never needs them, the others load them after they have read their parameters."""
    names = ", ".join(f"stages.{name}" for name in (*STAGES, *COMMANDS))
    code = f"import sys, {names}; print(*({{'torch', 'transformers', 'accelerate', 'openai'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout.split() == []
