"""A copy of the project in a folder of its own, to run the pipeline in."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from stages.core.yaml_edit import rewrite

ROOT = Path(__file__).parents[1]
NOWHERE = "http://127.0.0.1:9"  # nothing listens there: what would leave the machine fails at once


def read_yaml(path: Path) -> Any:
    return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))


def _written_by_a_run(name: str) -> bool:
    top, _, rest = name.partition("/")
    by_hand = ("catalog/", "authored/", "annotations/", "pins/")
    return (
        name == "dvc.lock"
        or top in ("models", "metrics", "reports")
        or (top == "data" and not rest.startswith(by_hand))
    )


class Workspace:
    """A project folder under git, and the commands that a user types there."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @classmethod
    def fresh(cls, root: Path) -> Workspace:
        """The working tree before its first run, with the miniature's parameters, in a repository of its own."""
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT, check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip
        for name in filter(None, listed.split("\0")):
            if (ROOT / name).is_file() and not _written_by_a_run(name):
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, root / name)
        shutil.copyfile(ROOT / "profiles/miniature.yaml", root / "params.yaml")
        workspace = cls(root)
        workspace.run("git", "init", "--quiet")
        workspace.commit("start")
        return workspace

    def copy(self, root: Path) -> Workspace:
        """Everything of this workspace, caches included, in another folder."""
        shutil.copytree(self.root, root, symlinks=True)
        return Workspace(root)

    def run(self, *command: str, ok: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command; with `ok`, it must succeed."""
        done = subprocess.run(
            command, cwd=self.root, env=self._environment(environment), check=False, capture_output=True, text=True
        )
        assert not ok or done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
        return done

    def repro(self, *targets: str, ok: bool = True, **environment: str) -> list[str]:
        """`dvc repro`; gives the stages that it ran, in order, without those restored from the run cache."""
        done = self.run("dvc", "repro", *targets, ok=ok, **environment)
        return re.findall(r"^Running stage '(.*)':$", done.stdout, flags=re.MULTILINE)

    def commit(self, message: str) -> None:
        """Commit everything that git does not ignore."""
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "--allow-empty", "--message", message)

    def set(self, values: Mapping[str, object]) -> None:
        """Change parameters by their dotted paths."""
        path = self.root / "params.yaml"
        params = read_yaml(path)
        for name, value in values.items():
            *above, key = name.split(".")
            section = params
            for part in above:
                section = section[part]
            assert key in section, name
            section[key] = value
        path.write_text(rewrite(path.read_text(encoding="utf-8"), params), encoding="utf-8")

    def outs(self) -> dict[str, str]:
        """md5 of every output in dvc.lock, by path."""
        stages = read_yaml(self.root / "dvc.lock")["stages"].values()
        return {out["path"]: out["md5"] for stage in stages for out in stage.get("outs", [])}

    def _environment(self, more: Mapping[str, str]) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "DVC_", "AWS_"))}
        who = {"NAME": "Test", "EMAIL": "test@example.org"}
        return {
            **kept,
            **{f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER") for key, value in who.items()},
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_NOSYSTEM": "1",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "DVC_SITE_CACHE_DIR": str(self.root.parent / "dvc-site"),
            "HF_HUB_OFFLINE": "1",
            "HTTP_PROXY": NOWHERE, "HTTPS_PROXY": NOWHERE, "NO_PROXY": "127.0.0.1,localhost",
            "OMP_NUM_THREADS": "1",
            "POLARS_MAX_THREADS": "2",
            **more,
        }  # fmt: skip
