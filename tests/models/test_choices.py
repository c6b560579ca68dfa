"""Choices that copies of a network make as the first one did."""

from __future__ import annotations

import copy
import pickle

import torch
from torch import nn

from fewer.models.choices import Choices, choose_freely, remember_choices, share_choices


class Largest(nn.Module):
    """Looks at the largest input of each row after a layer, and gives a second layer's value there."""

    makes_choices = True
    choices: Choices | None = None

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)

    def forward(self, x):
        at = self.first(x).argmax(1)
        if self.choices is not None:
            at = torch.stack([self.choices.first(row, own) for row, own in zip(x, at, strict=True)])
        return self.second(x).gather(1, at[:, None])


def test_copies_choose_what_the_first_one_chose_until_they_are_free():
    torch.manual_seed(0)
    net, x = Largest(), torch.randn(16, 4)
    free = net(x)
    remember_choices(net)
    assert torch.equal(net(x), free)
    twin = copy.deepcopy(net)
    twin.first.weight.data.neg_()  # would choose the smallest
    assert torch.equal(twin(x), free)
    other = Largest()
    other.load_state_dict(twin.state_dict())
    assert not torch.equal(other(x), free)
    assert torch.equal(share_choices(other, net)(x), free)
    assert not torch.equal(choose_freely(twin)(x), free)
    assert net.choices is not None and twin.choices is None


def test_choices_are_bounded():
    choices = Choices(most=3)
    rows = torch.arange(5.0)
    assert [choices.first(row, i) for i, row in enumerate(rows)] == [0, 1, 2, 3, 4]
    assert len(choices) == 3 and choices.first(rows[4], 9) == 4 and choices.first(rows[0], 9) == 9


def test_another_process_goes_on_with_what_was_chosen_and_any_number_has_a_print():
    """A worker that sees a cut network first must not take that one's choices for the dense ones."""
    for kind in (torch.float32, torch.bfloat16, torch.int64):
        choices, x = Choices(), torch.arange(6).view(2, 3).to(kind)
        choices.first(x, "dense")
        there = pickle.loads(pickle.dumps(choices))
        assert there.first(x, "cut") == "dense" and there.first(x + 1, "cut") == "cut" and len(choices) == 1
