"""What ends a network is left to the client, which computes it exactly."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fewer.private.adapt import answers_of
from fewer.private.left import LEFT, after, before, names_of
from fewer.private.reading import read_network
from fewer.private.verdict import agreement, decisions, distance


class Ends(nn.Module):
    def __init__(self, end, outputs: int = 1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.end = nn.Linear(6, 8), nn.Linear(8, outputs), end

    def forward(self, x: Tensor):
        return self.end(self.b(torch.relu(self.a(x))))


ENDS = {
    "sigmoid": (lambda y: torch.sigmoid(y), 1, ["sigmoid"]),
    "sigmoid, squeezed": (lambda y: torch.sigmoid(y).squeeze(1), 1, ["sigmoid"]),
    "squeezed": (lambda y: y.squeeze(), 1, []),
    "softmax in a dictionary": (lambda y: {"scores": y.softmax(1)}, 3, ["softmax"]),
    "softmax in a tuple": (lambda y: (torch.log_softmax(y, -1), None), 3, ["log_softmax"]),
    "softmax of channels": (lambda y: y.view(-1, 2, 2, 3).softmax(1), 12, ["softmax"]),
    "tanh in a map": (lambda y: torch.tanh(y).reshape(-1, 1, 2, 2), 4, ["tanh"]),
    "relu": (lambda y: torch.relu(y), 4, []),
}


@pytest.mark.parametrize("name", ENDS)
def test_what_is_left_gives_the_answers_of_the_network(name: str) -> None:
    end, outputs, left = ENDS[name]
    net, images = Ends(end, outputs).eval(), torch.randn(5, 6)
    network = read_network(net, images[:1])
    assert names_of(network.left) == left
    results = network(images).numpy()
    for image, row in zip(images, results, strict=True):
        said = net(image[None])
        said = next(iter(said.values())) if isinstance(said, dict) else said[0] if isinstance(said, tuple) else said
        ours = after(row, network.answer, network.left)
        assert np.allclose(np.ravel(ours), said.detach().numpy().ravel(), atol=1e-5)
    # and back again, but for a constant of each row
    answers = answers_of(net, network, images[:2]).double().numpy()
    if name == "softmax of channels":
        shape = (2, 2, 2, 3)
        answers, results = (
            x[:2] - x[:2].reshape(shape).mean(1, keepdims=True).repeat(2, 1).reshape(2, -1) for x in (answers, results)
        )
    elif left and "softmax" in left[0]:
        answers, results = (x[:2] - x[:2].mean(1, keepdims=True) for x in (answers, results))
    assert np.allclose(answers, results[:2], atol=1e-4)


class Padded(nn.Module):
    def forward(self, y: Tensor) -> Tensor:
        return torch.nn.functional.pad(torch.sigmoid(y), (0, 1))


def test_what_cannot_be_undone_stays_in_the_circuit() -> None:
    """Zeros that are set beside a sigmoid are none of its numbers; in front of a softmax nobody knows what it was."""
    twice = (lambda y: y.softmax(1).softmax(1), ["softmax", "softmax"])
    for end, left in ((Padded(), []), (lambda y: torch.sigmoid(y).softmax(1), ["softmax"]), twice):
        net, images = Ends(end, 3).eval(), torch.randn(5, 6)
        network = read_network(net, images[:1])
        assert names_of(network.left) == left
        ours = np.stack([after(row, network.answer, network.left) for row in network(images).numpy()])
        assert np.allclose(ours, net(images).detach().numpy(), atol=1e-5)
        answers, results = answers_of(net, network, images).double().numpy(), network(images).numpy()
        assert distance(results, answers, network.answer, network.left) < 1e-6


def test_a_constant_before_a_softmax_is_no_distance() -> None:
    x = np.random.default_rng(0).normal(size=(4, 12))
    shifted = (x.reshape(4, 2, 2, 3) + np.arange(8.0).reshape(4, 1, 2, 1)).reshape(4, 12)
    told = agreement(x, shifted.copy(), (1, 2, 2, 3), [("softmax", 2)])
    assert told["distance"] > 0.1
    shifted = (x.reshape(4, 2, 2, 3) + np.arange(24.0).reshape(4, 2, 1, 3)).reshape(4, 12)
    told = agreement(x, shifted, (1, 2, 2, 3), [("softmax", 2)])
    assert told["distance"] < 1e-12 and told["agreement"] == 1.0


def test_every_inverse_is_one() -> None:
    x = np.linspace(-3, 3, 7)[None]
    for name, (there, _) in LEFT.items():
        back = before(there(x, 1), [(name, 1)])
        assert np.allclose(back - back.mean() * (name.endswith("softmax")), x, atol=1e-6), name


def test_what_results_decide() -> None:
    row = np.array([[0.1, 2.0, -1.0]])
    assert decisions(row, (1, 3), ()).tolist() == [[1]]
    assert decisions(row, (1, 3), (("sigmoid", 0),)).tolist() == [[1, 1, 0]]
    assert decisions(row[:, :1], (1,), ()) is None and decisions(row[:, :1], (), (("sigmoid", 0),)).tolist() == [[1]]
    maps = np.arange(8.0).reshape(1, 8)
    assert decisions(maps, (1, 2, 2, 2), (("softmax", 1),)).tolist() == [[1, 1, 1, 1]]
    assert decisions(maps, (1, 2, 2, 2), ()) is None
