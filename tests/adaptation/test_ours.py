"""The default: which networks are trained, what they share, and which one is kept without a label of the target."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fewer.adaptation.choice import signs
from fewer.adaptation.methods import METHODS
from fewer.adaptation.ours import SHARES, member_steps, most_trusted
from fewer.adaptation.problem import Member, Work
from tests.adaptation.domains import problem, settings


@pytest.fixture(autouse=True)
def _all_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings of a few steps have the networks of long ones."""
    monkeypatch.setattr("fewer.adaptation.ours.SHORT", 0)
    monkeypatch.setattr("fewer.adaptation.ours.DOUBT", 0.0)


def adapted(work: Work | None = None, **more):
    return METHODS["ours"].run(problem(), settings(method="ours", steps=24, **more), work or Work())


def trusting(monkeypatch: pytest.MonkeyPatch, **values: float) -> None:
    """Networks are trusted as it is said here, in the order in which they are trained."""
    given = iter(values.values())
    monkeypatch.setattr("fewer.adaptation.ours.signs", lambda *_: {"trust": next(given), "mirror": 1.0, "sizes": 1.0})


def test_stages_share_the_steps_and_no_more() -> None:
    found = adapted()
    assert sum(stage.step for stage in found.stages.values()) == 24
    assert list(found.stages) == [
        "source-only-train", "curves-train", "self-training-round-1", "contrasts-contrasts", "contrasts-round-1",
    ]  # fmt: skip
    assert {member.name: member.steps for member in found.members} == {
        "source-only": 6, "curves": 8, "self-training": 9, "contrasts": 13,
    }  # fmt: skip


@pytest.mark.parametrize("name", ["source-only", "curves", "self-training", "contrasts"])
def test_the_most_trusted_network_is_kept(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    order = ("source-only", "curves", "self-training", "contrasts")
    trusting(monkeypatch, **{one: 0.9 if one == name else 0.7 for one in order})
    work = Work()
    found = adapted(work)
    assert [member.name for member in found.members if member.kept] == [name]
    assert found.model is next(member.model for member in found.members if member.kept)
    assert any(f"{name} is kept" in note for note in work.notes)


@pytest.mark.parametrize("name", ["source-only", "curves", "self-training", "contrasts"])
def test_the_kept_network_goes_on_in_its_own_way(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fewer.adaptation.ours.EXPLORE", 12)
    trusting(
        monkeypatch, **{one: float(one == name) for one in ("source-only", "curves", "self-training", "contrasts")}
    )
    monkeypatch.setattr("fewer.adaptation.ours.HOPELESS", 0.0)
    monkeypatch.setattr("fewer.adaptation.contrasts.trust", lambda problem, model: 1.0)
    found = adapted()
    kept = next(member for member in found.members if member.kept)
    assert kept.name == name and found.steps_after_choice == 11
    assert sum(fit.step for stage, fit in found.stages.items() if "-more-" in stage) == 11
    assert any(not torch.equal(v, kept.model.state_dict()[k]) for k, v in found.model.state_dict().items())


def test_more_steps_that_lower_the_trust_are_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fewer.adaptation.ours.EXPLORE", 12)
    trusting(monkeypatch, source=0.9, curves=0.5, labels=0.5, contrasts=0.5)
    given = iter((1.0, 1.0, 0.9, 0.3))  # before and after the labels of contrasts, then of the kept one
    monkeypatch.setattr("fewer.adaptation.contrasts.trust", lambda problem, model: next(given))
    work = Work()
    found = adapted(work)
    kept = next(member for member in found.members if member.kept)
    assert all(torch.equal(value, kept.model.state_dict()[key]) for key, value in found.model.state_dict().items())
    assert "more steps lowered the trust from 0.90 to 0.30" in work.notes[-1]


def test_of_equal_trust_no_adaptation_is_kept() -> None:
    same = [Member(name, torch.nn.Identity(), 1, {"trust": 0.0}) for name in ("source-only", "curves")]
    assert most_trusted(same).name == "source-only"


def test_members_are_what_the_methods_alone_would_be() -> None:
    found = {member.name: member for member in adapted().members}
    for name in ("source-only", "curves"):
        alone = METHODS[name].run(problem(), settings(method=name, steps=SHARES[name]), Work()).model.state_dict()
        assert all(torch.equal(value, found[name].model.state_dict()[key]) for key, value in alone.items())


def test_a_hopeless_network_labels_nothing_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    trusting(monkeypatch, source=0.2, curves=0.8, contrasts=0.5)
    work = Work()
    found = adapted(work)
    assert [member.name for member in found.members] == ["source-only", "curves", "contrasts"]
    assert "self-training is left out" in work.notes[0]


def test_a_source_that_is_contradicted_is_not_kept_however_sure_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    trusting(monkeypatch, source=0.9, curves=0.7, contrasts=0.6)
    monkeypatch.setattr("fewer.adaptation.ours.DOUBT", 0.5)
    monkeypatch.setattr("fewer.adaptation.ours.pooled_dice", lambda pairs, classes: 0.1)
    work = Work()
    found = adapted(work)
    assert {member.name: member.kept for member in found.members} == {
        "source-only": False, "curves": True, "contrasts": False,
    }  # fmt: skip
    assert "sees other structures in the target than source-only" in work.notes[0]
    assert "source-only, contrasts see other structures in the target than curves" in work.notes[-1]


def test_curves_that_found_nothing_contradict_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    trusting(monkeypatch, source=0.9, curves=0.1, labels=0.8, contrasts=0.2)
    monkeypatch.setattr("fewer.adaptation.ours.DOUBT", 0.5)
    monkeypatch.setattr("fewer.adaptation.ours.pooled_dice", lambda pairs, classes: 0.1)
    assert [member.name for member in adapted().members if member.kept] == ["source-only"]


def test_the_estimate_is_told_and_not_noted() -> None:
    told: list[str] = []
    work = Work(tell=told.append)
    adapted(work)
    assert any("all together take about" in line for line in told)
    assert not any("take about" in note for note in work.notes)


@pytest.mark.parametrize(
    ("without", "stages"),
    [
        ((), list(SHARES)),
        (("choice",), []),
        (("all",), []),
        (("curves", "structures"), ["source-only", "self-training"]),
        (("curves",), ["source-only", "self-training", "contrasts", "contrasts, labels"]),
        (("pseudo-labels",), ["source-only", "curves", "contrasts"]),
        (("warm-start",), list(SHARES)),
    ],
)
def test_a_module_that_is_off_leaves_its_network_out(without: tuple[str, ...], stages: list[str]) -> None:
    steps = member_steps(settings(method="ours", steps=1600, without=without))
    assert list(steps) == stages
    assert not steps or 1590 <= sum(steps.values()) <= 1600


def test_without_a_warm_start_contrasts_begin_anew() -> None:
    found = {member.name: member.steps for member in adapted(without=("warm-start",)).members}
    assert found["contrasts"] == 7


def test_signs_do_not_depend_on_answers_and_choose_what_finds_the_target() -> None:
    posed = replace(problem(), mirror=0)
    found = signs(posed, posed.network.eval())
    assert found["trust"] == pytest.approx((found["mirror"] * found["sizes"] * found["held-out source"]) ** (1 / 3))
    assert found == signs(replace(posed, answers=()), posed.network)


def test_a_short_training_is_one_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert member_steps(settings(method="ours", steps=400)) == {}
    found = adapted()
    assert not found.members and list(found.stages) == ["train", "round-1"]
