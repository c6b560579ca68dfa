"""A replayed pass is the plain pass, bit for bit, from whichever layer on it starts."""

from collections import OrderedDict

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fewer.distortion.outputs import output_tensors
from fewer.distortion.replay import Replay
from fewer.models.layers import find_layers
from fewer.models.matching import match
from tests.tiny import TINY, tiny


def same(a, b) -> bool:
    return all(torch.equal(x, y) for x, y in zip(output_tensors(a), output_tensors(b), strict=True))


def check_everywhere(model: nn.Module, batches: list[torch.Tensor]) -> list[int]:
    """Compare at every unit, dense and changed; give how many modules were replayed at each."""
    replay = Replay(model, batches)
    replayed = []
    for layer in find_layers(model, match(model, batches[0]).units, batches[0]).values():
        replay.start_at(layer.users)
        replayed.append(len(replay.cache))
        with torch.no_grad():
            for i, batch in enumerate(batches):
                assert same(replay.run(i), model(batch))
            with layer.borrowed():
                layer.install(layer.matrix * 0.5)
                for i, batch in enumerate(batches):
                    assert same(replay.run(i), model(batch))
    assert replay.enabled and not any("forward" in m.__dict__ for m in model.modules())
    return replayed


@pytest.mark.parametrize("name", TINY)
def test_replay_equals_the_plain_forward_at_every_unit(name):
    model, x = tiny(name)
    replayed = check_everywhere(model, list(torch.cat([x, 2 - x]).split(3)))
    assert replayed[0] == 0 and (len(replayed) < 2 or max(replayed) > 0)


class SharedInPlace(nn.Module):
    """The input of an in-place ReLU is used again after it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.relu, self.head = nn.Linear(8, 8), nn.ReLU(inplace=True), nn.Linear(8, 3)

    def forward(self, x):
        y = self.stem(x)
        z = self.relu(y)
        return self.head(y + z)


class Mapping(OrderedDict):
    """An output class with attributes, as transformers have them."""

    @property
    def hidden(self):
        return self["hidden"]


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 8)

    def forward(self, x):
        return Mapping(hidden=F.relu(self.fc(x)))


class WithMapping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.head = Encoder(), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.encoder(x).hidden.mul_(2))


class Swallows(nn.Module):
    """Would catch a stop signal that is an ordinary exception."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x):
        x = self.a(x)
        try:
            x = self.b(x)
        except Exception:
            x = x * 0
        return self.c(x)


@pytest.mark.parametrize("make", [SharedInPlace, WithMapping, Swallows])
def test_awkward_models_are_replayed_exactly(make):
    torch.manual_seed(0)
    assert max(check_everywhere(make().eval(), [torch.randn(3, 8), torch.randn(2, 8)])) > 0


class Talks(nn.Module):
    """Modules that talk to each other behind the back of their outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, 8), nn.Linear(8, 3)
        self.store: list[torch.Tensor] = []
        outer = self

        class Writes(nn.Module):
            def forward(self, x):
                outer.store.append(x.sum())
                return x

        self.writes = Writes()

    def forward(self, x):
        self.store.clear()
        x = self.writes(self.first(x))
        return self.last(x) * sum(self.store)


def test_what_cannot_be_replayed_is_found_out_at_any_layer():
    from fewer.core.option import Option
    from fewer.distortion.measured import Measured
    from fewer.models.layers import Fit

    torch.manual_seed(0)
    model, x = Talks().eval(), torch.randn(3, 8)
    measured = Measured(model, [x])
    for layer in find_layers(model, match(model, x).units, x).values():
        changed = layer.matrix * 0.5
        keep = torch.ones_like(changed, dtype=torch.bool)
        distortion = measured.distortions(
            layer, [Fit(Option("unstructured", 0.1), keep, changed, torch.zeros(len(changed)))]
        )
        with layer.borrowed(), torch.no_grad():
            layer.install(changed)
            torch.testing.assert_close(distortion[0], measured.reference.change(0, model(x)))
    assert not measured.replay.enabled


def test_another_path_for_another_batch_is_found_out():
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.head = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 3)

        def forward(self, x):
            return self.head(self.b(self.a(x)) if x.sum() > 0 else self.b(x))

    torch.manual_seed(0)
    model, batches = Branches().eval(), [torch.ones(2, 8), -torch.ones(2, 8)]
    replay = Replay(model, batches)
    replay.start_at([model.head])
    assert all(same(replay.run(i), model(b)) for i, b in enumerate(batches))
