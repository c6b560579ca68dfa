"""One network in three stages: what labels the target, what is taken back, and what each module changes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from fewer.adaptation.choice import mean_sizes, pooled_dice, signs, some, trust, unlearned
from fewer.adaptation.contrasts import keep_if_believed
from fewer.adaptation.learn import Lesson, Stream
from fewer.adaptation.methods import METHODS
from fewer.adaptation.problem import Problem, Work
from fewer.adaptation.pseudo import _views, label, might_be
from fewer.adaptation.style import UNKNOWN
from fewer.adaptation.teachers import label_and_learn
from tests.adaptation.domains import pair, problem, settings


class _Threshold(nn.Module):
    """A disc is what is brighter, or darker, than a level."""

    def __init__(self, level: float, sign: float) -> None:
        super().__init__()
        self.level = nn.Parameter(torch.tensor(level))
        self.sign = sign

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        score = 8 * self.sign * (x[:, :1] - self.level)
        return torch.cat([-score, score], 1)


def posed():
    return replace(problem(), mirror=0)


def dark() -> Problem:
    """Held-out discs are dark as those of the target, so that a threshold can know both."""
    return replace(posed(), held=[pair(9, -1.0)])


def test_a_network_that_knows_the_target_is_trusted_more() -> None:
    right, wrong = _Threshold(-0.7, -1.0), _Threshold(0.7, 1.0)  # discs of the target are dark
    both = [signs(dark(), net) for net in (right, wrong)]
    assert both[0]["sizes"] > both[1]["sizes"] and both[0]["trust"] > both[1]["trust"]
    assert trust(dark(), _Threshold(99.0, 1.0)) == 0.0  # one that finds nothing


def test_trust_equals_its_formula_where_mirrors_agree() -> None:
    p, net = dark(), _Threshold(-0.7, -1.0)  # acts on each pixel alone, so that mirrors agree wholly
    guesses = [p.logits(net, x).argmax(0) for x in p.target]
    here, there = mean_sizes(guesses, 2)[0], mean_sizes([mask for _, mask in p.source], 2)[0]
    held = pooled_dice([(p.logits(net, x).argmax(0), y) for x, y in p.held], 2)
    assert np.isclose(trust(p, net) ** 3, min(here, there) / max(here, there) * held)


def test_the_network_of_the_source_labels_nothing_however_sure_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    labelled_by = []
    monkeypatch.setattr("fewer.adaptation.contrasts.SHORT", 0)
    monkeypatch.setattr("fewer.adaptation.contrasts.trust", lambda problem, model: 1.0)
    monkeypatch.setattr("fewer.adaptation.teachers.unlearned", lambda problem, model: [])
    monkeypatch.setattr("fewer.adaptation.teachers.label", lambda p, model, *_, **__: labelled_by.append(model) or [])
    p = problem()
    METHODS["contrasts"].run(p, settings(method="contrasts", steps=8), Work())
    assert labelled_by == [p.network]


def test_pseudo_labels_that_lose_a_structure_are_taken_back() -> None:
    good, lost, work = _Threshold(-0.7, -1.0), _Threshold(9.0, 1.0), Work()
    keep_if_believed(dark(), work, good, lost)
    assert lost.level.item() == pytest.approx(-0.7)
    assert "the weights before them are kept" in work.notes[-1]
    work = Work()
    keep_if_believed(dark(), work, lost, good)
    assert work.notes == []


def test_images_that_are_looked_at_are_not_the_first_ones_of_many() -> None:
    chosen = some(list(range(64)), 6)
    assert chosen == sorted(chosen) and len(set(chosen)) == 6 and max(chosen) > 20


@pytest.mark.parametrize(
    ("without", "stages"),
    [
        ((), ["plain", "contrasts", "round-1"]),
        (("pseudo-labels",), ["plain", "contrasts"]),
        (("warm-start",), ["train", "round-1"]),
        (("curves", "structures"), ["train", "round-1"]),
        (("all",), ["train"]),
    ],
)
def test_a_module_that_is_off_leaves_its_stage_out_and_the_steps_stay(without, stages, monkeypatch) -> None:
    monkeypatch.setattr("fewer.adaptation.contrasts.SHORT", 0)
    chosen = settings(method="contrasts", steps=8, without=without)
    found = METHODS["contrasts"].run(problem(), chosen, Work()).stages
    assert list(found) == stages and sum(stage.step for stage in found.values()) == 8


def test_a_structure_that_is_not_found_even_in_the_source_is_not_taught_from_the_target() -> None:
    knows, knows_not = _Threshold(0.7, 1.0), _Threshold(9.0, 1.0)  # discs of the source are bright
    assert unlearned(posed(), knows) == [] and unlearned(posed(), knows_not) == ["disc"]
    work = Work()
    p = replace(posed(), network=knows_not)
    lesson = Lesson([Stream(p.source)], p.held)
    label_and_learn(p, settings(learning_rate=1e-9), work, lesson, 2)
    assert "disc is not found even in source scans yet" in work.notes[0] and len(work.notes) == 2


class _KnowsOneOfTwo(nn.Module):
    """Finds discs by their brightness; of specks, which are in between, it has no more than a suspicion."""

    def __init__(self) -> None:
        super().__init__()
        self.level = nn.Parameter(torch.tensor(1.9))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        score = 8 * (x[:, :1] - self.level)
        return torch.cat([-score, score, 5.0 - 8 * (x[:, :1] - 1.0).abs()], 1)


def test_a_tiny_structure_that_is_not_learned_stops_no_labels_of_others() -> None:
    def scene(shift: int) -> tuple[torch.Tensor, torch.Tensor]:
        mask = torch.zeros(24, 24, dtype=torch.uint8)
        mask[4 + shift : 12 + shift, 4:12], mask[18:20, 18 + shift : 20 + shift] = 1, 2
        noise = 0.1 * np.random.default_rng(shift).standard_normal((24, 24))
        image = torch.tensor([0.0, 6.0, 2.6])[mask.long()] + torch.from_numpy(noise).float()
        return ((image - image.mean()) / image.std())[None], mask

    net = _KnowsOneOfTwo()
    p = replace(problem(), network=net, classes=("background", "disc", "speck"), source=[scene(0)], held=[scene(1)])
    p = replace(p, target=[scene(2)[0]])
    assert unlearned(p, net) == ["speck"]
    ((_, found),) = label(p, net, p.target, open_classes=might_be(p, net, ["speck"]))
    truth = scene(2)[1]
    assert found is not None and (found[truth == 1] == 1).float().mean() > 0.7  # the disc is labelled
    assert (found[truth == 2] == UNKNOWN).all()  # nobody learns that there is no speck
    assert (found[truth == 0] == 0).float().mean() > 0.7
    ((_, otherwise),) = label(p, net, p.target)
    assert otherwise is not None and (otherwise[truth == 2] == 0).any()  # as it would be taught
    lines = Work()
    label_and_learn(p, settings(learning_rate=1e-9), lines, Lesson([Stream(p.source)], p.held), 2)
    assert "speck is not found even in source scans" in lines.notes[0] and "1 of 1 target scans" in lines.notes[1]
    early, more = Work(), replace(p, classes=(*p.classes, "never"), held=[*p.held, (scene(3)[0], scene(3)[1] * 0 + 3)])
    label_and_learn(more, settings(learning_rate=1e-9), early, Lesson([Stream(p.source)], p.held), 2)
    assert "speck, never are not found" in early.notes[0] and "without pseudo-labels" in early.notes[1]  # two of three
    rare = replace(p, held=[(scene(1)[0], scene(1)[1] * (scene(1)[1] == 1))])  # which no held-out image has
    assert unlearned(rare, net) == ["speck"]


def test_a_short_training_has_no_stage_on_the_source_as_it_is() -> None:
    found = METHODS["contrasts"].run(problem(), settings(method="contrasts", steps=8), Work()).stages
    assert list(found) == ["train", "round-1"]


def test_views_are_mirrored_only_where_mirrors_train() -> None:
    seen = []

    def logits(model, image):
        seen.append(image)
        return torch.stack([torch.zeros(image.shape[1:]), image[0]])

    image = problem().target[0]
    for mirror in (0, 1, None):
        seen.clear()
        _views(replace(problem(), logits=logits, mirror=mirror), nn.Identity(), image, 0)
        along = [axis for axis in (0, 1) if any(torch.equal(one, image.flip(1 + axis)) for one in seen)]
        assert along == ([] if mirror is None else [mirror])


def test_sizes_in_voxels_do_not_depend_on_the_field_of_view() -> None:
    small, large = torch.zeros(10, 10), torch.zeros(20, 20)
    small[:5, :5] = large[:5, :5] = 1
    assert mean_sizes([small], 2).tolist() == [0.25] and mean_sizes([large], 2).tolist() == [0.0625]
    assert mean_sizes([small], 2, True).tolist() == mean_sizes([large], 2, True).tolist() == [25.0]
