"""A headless Chromium, where the machine has one."""

import shutil
import subprocess
from pathlib import Path

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = next((found for name in _NAMES if (found := shutil.which(name))), None)

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason=f"no browser on PATH: {', '.join(_NAMES)}")


def loaded(url: str, profile: Path, *, width: int = 1280) -> str:
    """The document as it stands after its scripts have run."""
    return _chromium(url, profile, "--dump-dom", "--virtual-time-budget=3000", f"--window-size={width},900")


def screenshot(url: str, profile: Path, out: Path, *, height: int) -> None:
    """A picture of the page, 1,280 pixels wide."""
    _chromium(url, profile, f"--screenshot={out}", f"--window-size=1280,{height}", "--hide-scrollbars")


def _chromium(url: str, profile: Path, *arguments: str) -> str:
    assert CHROMIUM is not None
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-dev-shm-usage", f"--user-data-dir={profile}", *arguments, url,
    ]  # fmt: skip
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout
