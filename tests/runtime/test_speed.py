"""Tokens a second and the share of the peak, by a clock of the test's own."""

from pathlib import Path

import pytest
import torch

from stages.core.training_cost import flops
from stages.runtime.shapes import read_shape
from stages.runtime.speed import Speed
from tests.tiny import make_base


def test_tokens_a_second_count_from_the_end_of_the_first_step(tmp_path: Path) -> None:
    ticks = iter([100.0, 102.0, 104.0])
    found = Speed(tmp_path, n_processes=1, clock=lambda: next(ticks))
    assert found.after([9000]) == {}
    assert found.after([30, 10]) == {"tok/s": "20"}
    assert found.after([80]) == {"tok/s": "30"}


def test_utilisation_is_the_models_operations_by_the_cards_peak(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = make_base(tmp_path / "base")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H100 80GB HBM3")
    half = flops(read_shape(base), [60]) / (2 * 989.4e12) * 2  # seconds in which two cards at half their peak do it
    ticks = iter([5.0, 5.0 + half])
    found = Speed(base, n_processes=2, clock=lambda: next(ticks))
    found.after([1])
    assert found.after([60])["mfu"] == "50%"
    ticks = iter([5.0, 5.0 + half])
    found = Speed(base, n_processes=2, rank=1, clock=lambda: next(ticks))
    found.after([1])
    share = flops(read_shape(base), [60], rank=1) / flops(read_shape(base), [60])
    assert found.after([60])["mfu"] == f"{0.5 * share:.0%}" != "50%"
