"""What a judge calls the likeness of two models, by what their output is."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import fewer
from fewer.distortion.outputs import dimension_of_classes
from fewer.engine.judge import Judge
from fewer.engine.worst import _top


class Fixed(nn.Module):
    """The images are the outputs."""

    def __init__(self, change: Tensor | float = 0.0, several: bool = False) -> None:
        super().__init__()
        self.change, self.several = change, several

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        return (x + self.change, x) if self.several else x + self.change


def test_probabilities_are_compared_by_their_first_class() -> None:
    images = torch.tensor([[0.6, 0.3, 0.1], [0.2, 0.3, 0.5]])
    quality = Judge(Fixed(), images).judge(Fixed(torch.tensor([-0.2, 0.19, 0.0])))
    assert (quality.name, quality.value) == ("top-1 agreement", 0.5)
    # the same numbers as features: nothing says that they are classes
    assert Judge(Fixed(), images, task="features").judge(Fixed()).name == "feature cosine"


def test_probabilities_of_a_sequence_and_of_a_map_are_compared_place_by_place() -> None:
    lines = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(0)).softmax(2)
    turned = lines.clone()
    turned[0, 0] = lines[0, 0].flip(0) if int(lines[0, 0].argmax()) != 2 else lines[0, 0].roll(1)
    for images, changed in ((lines, turned), (lines.mT[..., None], turned.mT[..., None])):
        quality = Judge(Fixed(), images).judge(Fixed(changed - images))
        assert quality.name == "top-1 agreement per place"
        assert quality.value == pytest.approx(11 / 12)


def test_the_cosine_of_a_sequence_is_that_of_all_its_places() -> None:
    images = torch.ones(1, 4, 3)
    change = torch.zeros(1, 4, 3)
    change[0, 3] = -2.0  # the last place points the other way; the first one says nothing of it
    quality = Judge(Fixed(), images).judge(Fixed(change))
    assert (quality.name, round(quality.value, 6)) == ("feature cosine", 0.5)


def test_shares_of_classes_are_not_made_into_shares_again() -> None:
    shares = torch.tensor([0.9, 0.1, 0.0])
    assert [round(guess["share"], 4) for guess in _top(shares, [])] == [0.9, 0.1, 0.0]
    assert round(_top(torch.tensor([2.0, -1.0, 0.0]), [])[0]["share"], 3) == 0.844


def test_what_is_the_same_for_every_image_is_told_from_what_differs() -> None:
    noise = torch.randn(400, 6, generator=torch.Generator().manual_seed(0))
    assert Judge(Fixed(), 3 + noise, task="features").steady() == pytest.approx(0.9, abs=0.01)
    assert Judge(Fixed(), noise[:8], task="features").steady() < 0.2  # few images do not make it look steady
    assert Judge(Fixed(several=True), 3 + noise).steady() == pytest.approx(0.9, abs=0.01)


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.box, self.score = nn.Conv2d(3, 8, 3, 2), nn.Conv2d(8, 4, 1), nn.Conv2d(8, 1, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.body(x).relu()
        return self.box(x), self.score(x).sigmoid()


def test_the_report_says_which_of_several_outputs_was_compared() -> None:
    torch.manual_seed(0)
    run = fewer.compress(
        Two(),
        torch.randn(24, 3, 12, 12),
        "weights=60%",
        calibration=16,
        heldout=8,
        sensing=4,
        baselines=(),
        additivity=0,
    )
    likeness = run.report.verdict.quality[0]
    assert likeness.name == "map correlation"
    assert likeness.note == "on 4 held-out images, of the first of the model's 2 outputs"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_probabilities_of_few_digits_are_known_as_such(dtype: torch.dtype) -> None:
    shares = torch.randn(64, 5, generator=torch.Generator().manual_seed(0)).softmax(1).to(dtype)
    assert dimension_of_classes(shares) == 1
    assert dimension_of_classes(shares * 0.98) is None
