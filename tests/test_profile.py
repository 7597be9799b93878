import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from dvc.repo import Repo

from stages import profile
from stages.common.errors import ParamsError
from stages.core.overlay import leaves
from stages.core.schedule import steps_per_epoch
from stages.core.yaml_edit import rewrite
from stages.profile import Profile, check, main, read_profile, run, touched
from tests.workspace import ROOT, Workspace, read_yaml

NAMES = sorted(path.stem for path in (ROOT / "profiles").glob("*.yaml"))
MINIATURE = (ROOT / "profiles/miniature.yaml").read_text()
PARAMS = read_yaml(ROOT / "profiles/miniature.yaml")
PATH = Path("params.yaml")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with params.yaml, dvc.yaml and the profiles, as the working directory."""
    (tmp_path / "profiles").mkdir()
    for name in NAMES:
        (tmp_path / f"profiles/{name}.yaml").write_bytes((ROOT / f"profiles/{name}.yaml").read_bytes())
    (tmp_path / "dvc.yaml").write_bytes((ROOT / "dvc.yaml").read_bytes())
    (tmp_path / "params.yaml").write_text(MINIATURE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def arguments(name: str) -> list[str]:
    """A value for each argument of a profile."""
    return [f"{key}=/somewhere/{key}" for key in read_profile(name).arguments]


@lru_cache
def of(name: str) -> tuple[Profile, dict[str, str]]:
    """A profile and values for its arguments."""
    return read_profile(name), dict(pair.split("=") for pair in arguments(name))


def lay(name: str) -> dict[str, Any]:
    main(name, arguments(name))
    return read_yaml(Path("params.yaml"))  # type: ignore[no-any-return]


def some(**fields: Any) -> Profile:
    return Profile.model_validate({"desc": "d", "params": {}, **fields})


# ----------------------------------------------------------------------------------------------- the committed profiles


def test_the_committed_parameters_are_the_miniature() -> None:
    """They changed: `cp params.yaml profiles/miniature.yaml`, or `python -m stages.profile miniature`."""
    assert (ROOT / "params.yaml").read_text() == MINIATURE


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("name", NAMES)
def test_miniature_gives_the_committed_bytes_back_after_any_profile(name: str) -> None:
    lay(name)
    main("miniature", [])
    assert Path("params.yaml").read_text() == MINIATURE


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("name", NAMES)
def test_a_profile_keeps_the_comments_between_sections(name: str) -> None:
    lay(name)
    heads = re.findall(r"^# -{9,} .*$", MINIATURE, flags=re.MULTILINE)
    assert re.findall(r"^# -{9,} .*$", Path("params.yaml").read_text(), flags=re.MULTILINE) == heads


ADDING = [name for name in NAMES if read_profile(name).adds]
ORDERS = [(name,) for name in NAMES] + [(first, *ADDING) for first in NAMES if first not in ADDING]


@pytest.mark.usefixtures("project")
def test_what_a_profile_gives_does_not_depend_on_what_was_laid_before() -> None:
    for name in ("ablations", "folders", "lima-7b", "folders"):
        assert lay(name) == run(PARAMS, *of(name)), name


@pytest.mark.parametrize("first", NAMES)
def test_every_profile_is_valid_over_every_other_too(first: str) -> None:
    """As `--keep` lays them."""
    under = run(PARAMS, *of(first))
    for second in NAMES:
        check(run(under, *of(second)), PATH)


@pytest.fixture(scope="module")
def cloned(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return Workspace.fresh(tmp_path_factory.mktemp("cloned") / "project")


@pytest.mark.usefixtures("parsed_once")
@pytest.mark.parametrize("names", ORDERS, ids=" then ".join)
def test_dvc_resolves_the_graph_of_every_profile(
    names: tuple[str, ...], cloned: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each by itself, and of those that add arms over each of the others."""
    monkeypatch.chdir(cloned.root)
    params = PARAMS
    for name in names:
        params = run(params, *of(name))
    Path("params.yaml").write_text(json.dumps(params))
    with Repo(str(cloned.root)) as repo:
        stages = {stage.name for stage in repo.index.stages}
        outs = {
            Path(out.fs_path).relative_to(cloned.root).as_posix() for stage in repo.index.stages for out in stage.outs
        }
        deps = {dep.def_path for stage in repo.index.stages for dep in stage.deps}
    assert {f"sft@{arm}" for arm in params["arms"]} <= stages
    made_by_no_stage = {dep for dep in deps if dep.startswith(("data/", "models/", "metrics/"))} - outs
    folders = {dep for dep in made_by_no_stage if any(out.startswith(f"{dep}/") for out in outs)}
    by_hand = {dep for dep in made_by_no_stage if dep.startswith("data/catalog/")} | {"data/annotations"}
    assert made_by_no_stage - folders <= by_hand
    assert all((ROOT / dep).is_file() for dep in by_hand if dep.endswith(".csv"))


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("name", NAMES)
def test_names_in_a_profile_name_something(name: str) -> None:
    params = lay(name)
    annotators = {
        *params["select_checkpoint"]["annotators"],
        *params["judge"]["annotators"],
        *params["grade"]["annotators"],
    }
    assert annotators <= set(params["annotators"])
    assert params["judge"]["arm"] in params["arms"]
    groups = {group for arm in params["arms"].values() for group in arm["sample"]["quotas"]}
    assert groups <= {"all", *params["sample"]["groups"]}


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(("name", "batch", "dropout"), [("lima-65b", 32, 0.3), ("lima-7b", 64, 0.2)])
def test_the_numbers_of_the_paper(name: str, batch: int, dropout: float) -> None:
    params = lay(name)
    sft, curated = params["sft"], params["arms"]["curated"]
    assert sft["method"] == "full"
    assert (sft["lr"], sft["lr_end"], sft["beta1"], sft["beta2"], sft["weight_decay"]) == (1e-5, 1e-6, 0.9, 0.95, 0.1)
    assert (sft["global_batch_size"], sft["residual_dropout"]) == (batch, dropout)
    assert (curated["sft"]["epochs"], curated["sft"]["candidate_epochs"]) == (15, [5, 6, 7, 8, 9, 10])
    assert sorted(curated["sample"]["quotas"].values()) == [50, 150, 200, 200, 200, 200]
    assert (params["prompts"]["dev"], params["prompts"]["test"]) == (
        {"authored": 50},
        {"authored": 230, "ask_reddit": 70},
    )
    assert params["render"]["max_tokens"] == 2048
    for section in ("generate", "respond"):
        decoding = params[section]
        assert (decoding["temperature"], decoding["top_p"], decoding["repetition_penalty"]) == (0.7, 0.9, 1.2)
        assert (decoding["max_new_tokens"], decoding["n_samples"]) == (2048, 1)
    assert params["score"]["confidence"] == 0.95


def test_the_bulk_arm_takes_the_steps_of_the_curated_arm() -> None:
    """On the miniature, in all and at each candidate: what bulk is worse at is not for want of training."""
    steps = {}
    for name, arm in PARAMS["arms"].items():
        n, size = sum(arm["sample"]["quotas"].values()), PARAMS["sft"]["global_batch_size"]
        epochs = [arm["sft"]["epochs"], *arm["sft"]["candidate_epochs"]]
        steps[name] = [steps_per_epoch(n, global_batch_size=size) * epoch for epoch in epochs]
    assert steps == {"curated": [420, 140, 280, 420], "bulk": [420, 140, 280, 420]}


# --------------------------------------------------------------------------------------------------------- laying over


def test_arguments_are_filled_in_and_maps_merge() -> None:
    laid = some(arguments={"where": "a folder"}, params={"a": {"path": "${where}/x"}})
    assert run({"a": {"n": 1}, "b": 2}, laid, {"where": "/d"}) == {"a": {"n": 1, "path": "/d/x"}, "b": 2}


def test_a_map_under_replace_is_put_in_whole() -> None:
    assert run({"a": {"n": 1}}, some(replace=["a"], params={"a": {"m": 2}}), {}) == {"a": {"m": 2}}


@pytest.mark.parametrize(
    ("fields", "given", "sentence"),
    [
        ({}, {"x": "1"}, r"^unknown argument, got 'x'; it takes none$"),
        ({"arguments": {"x": "a folder"}}, {}, r"^an argument is missing, got no 'x'; add x=VALUE \(a folder\)$"),
        ({"arguments": {"x": "a folder"}}, {"x": ""}, r"^an argument is missing, got no 'x'"),
        ({"params": {"a": "${x}"}}, {}, r"an argument that is not declared, got 'x'"),
        ({"replace": ["a.b"], "params": {"a": {}}}, {}, r"^replace: must name values under params, got 'a\.b'"),
    ],
)
def test_a_wrong_profile_or_argument_is_one_sentence(fields: Any, given: dict[str, str], sentence: str) -> None:
    with pytest.raises(ParamsError, match=sentence):
        run({"a": {"b": 1}}, some(**fields), given)


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    ("name", "given", "sentence"),
    [
        ("gone", [], r"^profiles: unknown profile, got 'gone'; there are ablations, "),
        ("folders", ["x"], r"^command line: an argument is NAME=VALUE, got 'x'"),
        ("folders", ["origin=/d"], r"^profiles/folders\.yaml: an argument is missing, got no 'base'"),
        ("miniature", ["x=1"], r"^profiles/miniature\.yaml: unknown argument, got 'x'"),
    ],
)
def test_a_wrong_command_line_is_one_sentence_and_changes_nothing(name: str, given: list[str], sentence: str) -> None:
    with pytest.raises(ParamsError, match=sentence):
        main(name, given)
    assert Path("params.yaml").read_text() == MINIATURE


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("params: {}\n", r"^profiles/bad\.yaml: bad\.desc: missing"),
        ("desc: d\nparams: {}\nmore: 1\n", r"^profiles/bad\.yaml: bad\.more: unknown key, got 1"),
        (
            "desc: d\nparams: {sft: {lr: high}}\n",
            r"^params\.yaml with profiles/bad\.yaml: sft\.lr: must be .*got 'high'",
        ),
        ("desc: d\nparams: {sft: {lr: -1.0}}\n", r": sft\.lr: must be greater than 0, got -1\.0"),
        ("desc: d\nparams: {sft: {rate: 1.0}}\n", r": sft\.rate: unknown key, got 1\.0"),
        ("desc: d\nparams: {nosuch: {rate: 1.0}}\n", r": nosuch\.rate: unknown key, got 1\.0; remove it"),
        ("desc: d\nparams: {arms: {curated: {more: 1}}}\n", r": arms\.curated\.more: unknown key, got 1; remove it"),
        ("desc: d\nparams: {arms: {third: {sample: {pool: p, quotas: {all: 1}}}}}\n", r": arms\.third\.sft: missing"),
        (
            "desc: d\nparams: {opponents: {x: {kind: nosuch, path: p}}}\n",
            r": opponents\.x\.kind: must be .*got 'nosuch'",
        ),
        ("desc: d\nparams: {annotators: {x: {kind: nosuch}}}\n", r": annotators\.x.*'nosuch'"),
        ("desc: d\nreplace: [sources]\nparams: {sources: {}}\n", r": sources: must have one key or more, got none"),
        (
            "desc: d\nparams: {sources: {wiki.how: {format: wikihow, origin: x}}}\n",
            r": sources: keys .*got 'wiki\.how'",
        ),
        ("desc: d\nparams: {annotators: {a/b: {kind: keywords}}}\n", r": annotators: keys must be .*got 'a/b'"),
        (
            "desc: d\nparams: {judge: {arm: third}}\n",
            r": judge\.arm: must be a key of arms, got 'third'; name one of c",
        ),
        (
            "desc: d\nparams: {opponents: {x: {kind: responses, path: ./data/respond/gone.parquet}}}\n",
            r": opponents\.x\.path: must be the answers of an arm, got '\./data/respond/gone\.parquet'; remove ",
        ),
        ("desc: [d\n", r"^profiles/bad\.yaml: not YAML"),
        ("- 1\n", r"^profiles/bad\.yaml: bad: must be"),
    ],
)
def test_a_wrong_value_is_one_sentence_and_changes_nothing(body: str, sentence: str, project: Path) -> None:
    (project / "profiles/bad.yaml").write_text(body)
    with pytest.raises(ParamsError, match=sentence) as caught:
        main("bad", [])
    assert "\n" not in str(caught.value)
    assert Path("params.yaml").read_text() == MINIATURE


def test_text_that_cannot_be_edited_in_place_is_left_alone(project: Path) -> None:
    (project / "params.yaml").write_text(
        MINIATURE.replace("seed: 0", "seed: &s 0", 1).replace("seed: 0", "seed: *s", 1)
    )
    with pytest.raises(ParamsError, match=r"^params\.yaml: cannot be edited in place, it has anchors"):
        main("ablations", [])


# -------------------------------------------------------------------------------------------------------------- output


@pytest.mark.usefixtures("project")
def test_it_shows_what_changes_and_what_runs_again(capsys: pytest.CaptureFixture[str]) -> None:
    params = read_yaml(Path("params.yaml"))
    params["score"]["confidence"] = 0.9
    Path("params.yaml").write_text(rewrite(MINIATURE, params))
    main("miniature", [], dry_run=True)
    assert capsys.readouterr().out.splitlines() == [
        "profiles/miniature.yaml: 1 values would change in params.yaml",
        "  score.confidence: 0.9 -> 0.95",
        "to run again, with all that follows from them: score report",
    ]
    assert read_yaml(Path("params.yaml")) == params


@pytest.mark.usefixtures("project")
def test_a_profile_starts_from_the_miniature_and_says_what_of_yours_goes_back(
    capsys: pytest.CaptureFixture[str],
) -> None:
    yours = read_yaml(Path("params.yaml"))
    yours["pull"]["concurrency"], yours["sft"]["lr"] = 1, 5e-4
    Path("params.yaml").write_text(rewrite(MINIATURE, yours))
    main("lima-7b", arguments("lima-7b"), keep=True)
    assert read_yaml(Path("params.yaml"))["pull"]["concurrency"] == 1
    assert "back to" not in capsys.readouterr().out
    main("lima-7b", arguments("lima-7b"))
    out = capsys.readouterr().out
    assert (
        "profiles/lima-7b.yaml: 1 values change in params.yaml\n  pull.concurrency: 1 -> 4, not of the profile\n" in out
    )
    assert "1 of them are not of the profile and go back to the miniature's; --keep would leave them\n" in out
    assert read_yaml(Path("params.yaml"))["pull"]["concurrency"] == 4


@pytest.mark.usefixtures("project")
def test_an_adding_profile_leaves_what_is_there() -> None:
    lay("folders")
    Path("params.yaml").write_text(Path("params.yaml").read_text().replace("n_heldout: 20", "n_heldout: 7"))
    assert lay("ablations")["sample"]["n_heldout"] == 7


def test_the_miniature_comes_back_over_a_file_that_is_no_map(project: Path) -> None:
    for text in ("", "[1]", "3"):
        (project / "params.yaml").write_text(text)
        with pytest.raises(ParamsError, match=r"^params\.yaml: must be a map of sections, got "):
            main("folders", arguments("folders"))
        main("miniature", [])
        assert (project / "params.yaml").read_text() == MINIATURE


@pytest.mark.usefixtures("project")
def test_the_list_has_every_profile_with_its_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    main(None, [])
    out = capsys.readouterr().out
    assert re.findall(r"^([\w.-]+): ", out, flags=re.MULTILINE) == NAMES
    assert "    base=  folder of a pretrained model" in out


def test_touched_stages_by_placeholder() -> None:
    pipeline = {
        "stages": {
            "one": {"foreach": "${arms}", "do": {"params": ["arms.${key}.sft", "sft"]}},
            "two": {"params": ["arms"]},
            "three": {"params": ["sftp"]},
            "four": {},
        }
    }
    assert touched(pipeline, ["arms.curated.sft.epochs"]) == ["one", "two"]
    assert touched(pipeline, ["sft.lr"]) == ["one"]


def test_every_leaf_has_a_model() -> None:
    check(PARAMS, PATH)
    for name in leaves(PARAMS):
        assert any(profile.below(name, pattern) for pattern in profile.MODELS), name


def test_the_command_prints_one_line_for_a_fault(fresh: Workspace) -> None:
    done = fresh.run("python", "-m", "stages.profile", "gone", ok=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith("error: profiles: unknown profile, got 'gone'")
