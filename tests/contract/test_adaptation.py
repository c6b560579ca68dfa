"""What every adaptation method promises: the same again, a resume that equals, and source-only when all is off."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fewer.adaptation.methods import METHODS
from fewer.adaptation.problem import Work
from fewer.adaptation.settings import MODULES, MODULES_OF
from fewer.tasks.segment.adapt_settings import AdaptSettings
from tests.adaptation.domains import SMALL, problem, settings

ALWAYS_ON = {"histogram", "fda", "synthesis", "target-oracle"}
"""Baselines that are one module."""


@pytest.fixture(autouse=True)
def _all_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings of four steps have the stages of long ones."""
    for room in ("ours", "contrasts"):
        monkeypatch.setattr(f"fewer.adaptation.{room}.SHORT", 0)


def run(name: str, work: Work | None = None, **more) -> dict[str, torch.Tensor]:
    found = METHODS[name].run(problem(), settings(method=name, **more), work or Work())
    assert not found.model.training
    return {key: value.clone() for key, value in found.model.state_dict().items()}


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, two[key]) for key, value in one.items())


class _Locked(list[Any]):
    """Labels that nobody may look at."""

    def _refuse(self, *_: object) -> Any:
        raise AssertionError("a label of the target was looked at")

    __bool__ = __iter__ = __len__ = __getitem__ = __contains__ = _refuse


@pytest.mark.parametrize("name", METHODS)
def test_the_same_seed_gives_the_same_weights_and_nobody_looks_at_target_masks(name: str) -> None:
    one = run(name)
    assert all(bool(torch.isfinite(value).all()) for value in one.values())
    if name == "target-oracle":
        return
    blind = replace(problem(), answers=_Locked())
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


class _Asking(AdaptSettings):
    """Settings that note which modules are asked for."""

    def uses(self, module: str) -> bool:
        _ASKED.add(module)
        return super().uses(module)


_ASKED: set[str] = set()


@pytest.mark.parametrize("name", METHODS)
def test_the_modules_that_are_listed_are_those_that_are_asked_for(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _ASKED.clear()
    monkeypatch.setattr("fewer.adaptation.teachers.unlearned", lambda problem, model: [])
    monkeypatch.setattr("fewer.adaptation.teachers.label", lambda p, *_, **__: [(p.target[0], p.source[0][1])])
    weight = {"consistency": 1.0} if name == "contrasts" else {}
    METHODS[name].run(problem(), _Asking.of({**SMALL, "method": name, **weight}), Work())
    assert set(MODULES_OF.get(name, ())) == _ASKED
    assert set(MODULES) == {module for own in MODULES_OF.values() for module in own}
