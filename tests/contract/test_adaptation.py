"""What every adaptation method promises: the same again, a resume that equals, and source-only when all is off."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fewer.adaptation.methods import METHODS
from fewer.adaptation.problem import Work
from tests.adaptation.domains import problem, settings

ALWAYS_ON = {"histogram", "fda", "synthesis", "target-oracle"}
"""Baselines that are one module."""


@pytest.fixture(autouse=True)
def _all_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings of four steps have the stages of long ones."""
    monkeypatch.setattr("fewer.adaptation.ours.SHORT", 0)


def run(name: str, work: Work | None = None, **more) -> dict[str, torch.Tensor]:
    found = METHODS[name].run(problem(), settings(method=name, **more), work or Work())
    assert not found.model.training
    return {key: value.clone() for key, value in found.model.state_dict().items()}


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, two[key]) for key, value in one.items())


@pytest.mark.parametrize("name", METHODS)
def test_the_same_seed_gives_the_same_weights_and_target_masks_change_nothing(name: str) -> None:
    one = run(name)
    assert all(bool(torch.isfinite(value).all()) for value in one.values())
    if name == "target-oracle":
        return
    blind = replace(problem(), answers=())
    two = METHODS[name].run(blind, settings(method=name), Work()).model.state_dict()
    assert same(one, dict(two))


@pytest.mark.parametrize("name", [name for name in METHODS if name not in ALWAYS_ON])
def test_with_all_modules_off_it_is_source_only(name: str) -> None:
    assert same(run(name, without=("all",)), run("source-only"))


@pytest.mark.parametrize("name", METHODS)
def test_a_resume_equals_never_having_stopped(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fewer.training.steps import Stepper

    whole = run(name)
    step, count = Stepper.step, 0

    def stopping(self, factor):
        nonlocal count
        count += 1
        if count == 3:
            raise KeyboardInterrupt
        step(self, factor)

    monkeypatch.setattr(Stepper, "step", stopping)
    with pytest.raises(KeyboardInterrupt):
        run(name, Work(tmp_path, "key"))
    monkeypatch.setattr(Stepper, "step", step)
    assert same(run(name, Work(tmp_path, "key")), whole)
