"""LE-UDA and MT-UDA where the translator is not safe: random curves take its place, and that is said."""

from __future__ import annotations

import pytest
import torch

from fewer.adaptation import le_uda
from fewer.adaptation.methods import METHODS
from fewer.adaptation.problem import Problem, Work
from fewer.adaptation.translate.safety import Checks
from fewer.training.history import Fit
from tests.adaptation.domains import problem, settings

UNSAFE = Checks((), 0.1, 0.9, (0.0, 0.0), (1.0, 1.0))
SAFE = Checks((), 0.9, 0.0, (0.0, 0.0), (1.0, 1.0))


class _Plus:
    """A translator that adds a number."""

    network = None

    def __init__(self, number: float) -> None:
        self.number = number

    def image(self, image: torch.Tensor) -> torch.Tensor:
        return image + self.number


def weights(method: str, work: Work, *without: str) -> dict[str, torch.Tensor]:
    found = METHODS[method].run(problem(), settings(method=method, without=without), work)
    assert not len(found.translated) and found.translator is None
    return dict(found.model.state_dict())


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, two[key]) for key, value in one.items())


@pytest.mark.parametrize("method", ["mt-uda", "le-uda"])
def test_random_curves_take_the_place_of_an_unsafe_translator(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(le_uda, "check_translation", lambda *_: UNSAFE)
    refused, plain = Work(), Work()
    curved, as_it_is = weights(method, refused), weights(method, plain, "curves")
    assert refused.notes == [
        "the translator is not used: it invents structures (edges agree 0.10, new edges 90%); "
        "random curves take its place"
    ]
    assert plain.notes == ["the translator is not used: it invents structures (edges agree 0.10, new edges 90%)"]
    assert not same(curved, as_it_is)
    # a translator that was refused leaves no trace
    assert same(curved, weights(method, Work(), "translation"))


@pytest.mark.parametrize("method", ["mt-uda", "le-uda"])
def test_the_student_learns_from_images_as_they_are_and_from_curved_ones(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(le_uda, "random_curve", lambda image, mask, rng: image + 100)
    seen: list[torch.Tensor] = []
    given = problem()
    given.network.register_forward_pre_hook(lambda net, inputs: seen.append(inputs[0]) if net.training else None)
    chosen = settings(method=method, without=("translation",), curve_share=1.0)
    METHODS[method].run(given, chosen, Work())
    labelled = next(x for x in seen if len(x) == 2)
    assert float(labelled[0].max()) < 50 < float(labelled[1].min())
    alone = [x for x in seen if len(x) == 1]  # of the target, and of both views of the source
    assert any(float(x.min()) > 50 for x in alone) and any(float(x.max()) < 50 for x in alone)


def test_with_modules_of_the_teachers_off_curves_still_train(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(le_uda, "check_translation", lambda *_: UNSAFE)
    off = ("intra", "inter", "adversarial")
    assert not same(weights("le-uda", Work(), *off), weights("le-uda", Work(), *off, "curves"))


def test_the_choice_looks_at_target_images_as_the_network_will_see_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(le_uda, "check_translation", lambda *_: SAFE)
    monkeypatch.setattr(le_uda, "train_cyclegan", lambda *_: (_Plus(10), _Plus(50), Fit()))
    looked: list[float] = []

    def judge(problem: Problem, *_: object) -> dict[str, float]:
        looked.append(min(float(image.mean()) for image in problem.target))
        return {"choice": 1.0}

    monkeypatch.setattr(le_uda, "judge", judge)
    METHODS["mt-uda"].run(problem(), settings(method="mt-uda"), Work())
    assert looked and min(looked) > 40
