"""Networks that the library does not know: what the circuit computes is what the network with polynomials does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewer.core.errors import FewerError
from fewer.private.adapt import adapt
from fewer.private.cheapen import cheapen
from fewer.private.compile import approximate_activations, kinds_of, pack_within
from fewer.private.execute import Runner
from fewer.private.keys import load_circuit, save_circuit
from fewer.private.left import after, names_of
from fewer.private.network import Network
from fewer.private.polynomial import Line, Squares, fit_squares
from fewer.private.reading import read_network
from fewer.private.simulator import Simulator
from fewer.private.stages import IMAGE, stages_of
from fewer.verbs.private import private_compile


class Residual(nn.Module):
    """A small ResNet, written with functions, with a shortcut that has weights and one that has none."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn = nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.a, self.b = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.c, self.short = nn.Conv2d(4, 8, 3, stride=2, padding=1), nn.Conv2d(4, 8, 1, stride=2)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn(self.stem(x)), inplace=True)
        x = F.relu(x + self.b(F.relu(self.a(x))))
        x = F.silu(self.c(x) + self.short(x))
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


class Joined(nn.Module):
    """Branches that are joined, channels that are shuffled, an image that is cut and padded."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 4, (3, 5), padding=(1, 2)), nn.Conv2d(2, 4, 3, padding="same", dilation=2)
        self.c = nn.Conv2d(8, 6, 3, groups=2, stride=(2, 1))
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.cat([F.gelu(self.a(x)), self.b(x) * 0.5 - 0.1], 1)
        y = F.pad(F.channel_shuffle(y, 2), (1, 0, 0, 1))
        y = F.leaky_relu(self.c(y), 0.2)
        left, right = y.chunk(2, 1)
        return self.head(torch.cat([right, left], 1).mean((2, 3)))


class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.a(x))


def plain(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers)


NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "residual": (Residual, (3, 8, 8)),
    "joined": (Joined, (2, 8, 7)),
    "depthwise": (
        lambda: plain(
            nn.BatchNorm2d(3), nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU6(),
            nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False), nn.BatchNorm2d(8), nn.Hardswish(),
            nn.Conv2d(8, 5, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4), nn.Softmax(-1),
        ),
        (3, 9, 9),
    ),
    "pools": (
        lambda: plain(
            nn.Conv2d(1, 3, 5, padding=2), nn.AvgPool2d(3, stride=2, padding=1), nn.PReLU(3),
            nn.Conv2d(3, 4, 3, stride=3), nn.Tanh(), nn.AvgPool2d(2, ceil_mode=True), nn.Flatten(), nn.Linear(16, 3),
        ),
        (1, 20, 20),
    ),
    "lines": (
        lambda: plain(
            nn.Conv1d(2, 4, 3, stride=2, padding=1), nn.BatchNorm1d(4), nn.ELU(), nn.Conv1d(4, 4, 3), nn.Flatten(),
            nn.Linear(24, 3),
        ),
        (2, 16),
    ),
    "vectors": (
        lambda: plain(
            nn.Linear(13, 20), nn.Mish(), nn.Dropout(), nn.Linear(20, 20), nn.SELU(), nn.Linear(20, 2),
        ),
        (13,),
    ),
    "up": (
        lambda: plain(
            nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.ReLU(), nn.ConvTranspose2d(4, 2, 3, 2, 1, 1), nn.Tanh(),
            nn.Upsample(scale_factor=0.5), nn.Flatten(), nn.Linear(32, 3),
        ),
        (1, 8, 8),
    ),
    "table": (
        lambda: plain(
            nn.BatchNorm1d(30), nn.Linear(30, 24), nn.BatchNorm1d(24), nn.LeakyReLU(), nn.Linear(24, 1), nn.Sigmoid(),
        ),
        (30,),
    ),
    "square": (lambda: plain(nn.Flatten(), nn.Linear(16, 6), Power(), nn.Linear(6, 2)), (1, 4, 4)),
    "ends in an activation": (lambda: plain(nn.Flatten(), nn.Linear(16, 6), nn.ReLU()), (1, 4, 4)),
}  # fmt: skip


class Power(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.pow(2) + x * x


def prepared(name: str) -> tuple[nn.Module, Tensor, Network]:
    make, shape = NETS[name]
    torch.manual_seed(0)
    net = make()
    net.train()(torch.randn(16, *shape))  # statistics that are not 0 and 1
    net.eval()
    return (
        net,
        torch.randn(10, *shape, generator=torch.Generator().manual_seed(1)),
        read_network(net, torch.zeros(1, *shape)),
    )


@pytest.mark.parametrize("name", NETS)
def test_what_is_read_computes_what_the_network_does(name: str) -> None:
    net, images, network = prepared(name)
    wanted = net(images).double()
    found = network(images)
    if network.left:
        found = torch.from_numpy(np.stack([after(row, network.answer, network.left) for row in found.numpy()]))
    assert torch.allclose(found.flatten(1), wanted.flatten(1), atol=1e-5) and not network.averaged
    assert names_of(network.left) == {"depthwise": ["softmax"], "table": ["sigmoid"]}.get(name, [])


@pytest.mark.parametrize("name", NETS)
def test_the_circuit_computes_what_the_polynomials_do_on_the_simulator_too(name: str) -> None:
    _, images, network = prepared(name)
    network = approximate_activations(network, images)
    circuit, parameters = pack_within(network, images)
    wanted = network(images[:2]).numpy()
    assert np.allclose(circuit.run(images[:2].numpy()), wanted, atol=1e-7)
    backend = Simulator(parameters)
    got = Runner(circuit, backend)([backend.encrypt(v) for v in circuit.pack(images[0].numpy())])
    assert np.allclose(circuit.unpack(backend.decrypt(got)), wanted[0], atol=1e-7)
    assert {k: backend.counts[k] for k in ("rotate", "multiply_plain", "square", "rescale")} == {
        k: circuit.counts().get(k, 0) for k in ("rotate", "multiply_plain", "square", "rescale")
    }


def test_a_shortcut_costs_no_level_and_is_read_where_it_stands() -> None:
    _, images, network = prepared("residual")
    network = approximate_activations(network, images)
    stages = stages_of(network)
    assert [s.sources for s in stages] == [[IMAGE], [0], [0, 1], [2], [3]]
    circuit, _ = pack_within(network, images)
    assert circuit.kinds() == ["linear", *["joint"] * 4]


@pytest.mark.parametrize("name", ["residual", "joined"])
def test_degrees_may_differ_beside_a_shortcut(name: str) -> None:
    _, images, network = prepared(name)
    first = network.name_of(network.order()[0])
    for degrees in (4, {first: 4}, {network.name_of(network.order()[-1]): 4}):
        made = approximate_activations(network, images, degrees)
        circuit, parameters = pack_within(made, images)
        assert np.allclose(circuit.run(images[:2].numpy()), made(images[:2]).numpy(), atol=1e-6)
        backend = Simulator(parameters)
        got = Runner(circuit, backend)([backend.encrypt(v) for v in circuit.pack(images[0].numpy())])
        assert np.allclose(circuit.unpack(backend.decrypt(got)), made(images[:1]).numpy()[0], atol=1e-6)


def test_seal_runs_a_network_with_shortcuts() -> None:
    pytest.importorskip("tenseal", reason='encrypted inference needs pip install "fewer[private]"')
    from fewer.private.trial import try_circuit

    _, images, network = prepared("joined")
    circuit, parameters = pack_within(approximate_activations(network, images), images)
    seen = try_circuit(circuit, parameters, images[:1].numpy())
    assert seen.encrypted and seen.difference < 0.02 * float(np.abs(seen.clear).max())


def test_maxima_become_averages_in_front_of_the_activation_and_that_is_said() -> None:
    net = plain(nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2, 1), nn.Flatten(), nn.Linear(48, 2)).eval()
    network = read_network(net, torch.zeros(1, 1, 8, 8))
    assert network.averaged == ("2",) and [c.kind for c in network.calls][1:3] == ["avg_pool2d", "activation"]
    images = torch.randn(5, 1, 8, 8)
    averages = F.avg_pool2d(net[0](images), 3, 2, 1, count_include_pad=False)
    assert torch.allclose(network(images), net[4](F.relu(averages).flatten(1)).double(), atol=1e-5)


@pytest.mark.parametrize(
    ("net", "shape", "words"),
    [
        (Gated(), (4,), "multiplies numbers that depend on the image"),
        (plain(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 2)), (4,), "'1' divides by numbers"),
        (
            plain(nn.Linear(4, 4), nn.Softmax(-1), nn.Linear(4, 2)),
            (4,),
            "'1' is a softmax, which no circuit has but at",
        ),
        (plain(nn.ReLU(), nn.Flatten()), (1, 4, 4), "no linear layer"),
        (plain(nn.Conv2d(1, 2, 3), nn.InstanceNorm2d(2)), (1, 8, 8), "BatchNorm"),
    ],
)
def test_what_has_no_place_in_a_circuit_is_told(net: nn.Module, shape: tuple[int, ...], words: str) -> None:
    with pytest.raises(FewerError, match=words):
        read_network(net.eval(), torch.zeros(1, *shape))


def test_an_image_that_is_too_large_is_told() -> None:
    net = plain(nn.Conv2d(1, 2, 3, stride=8), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 28 * 28, 2)).eval()
    images = torch.randn(3, 1, 224, 224)
    with pytest.raises(FewerError, match="take smaller images"):
        pack_within(approximate_activations(read_network(net, images[:1]), images), images)


def test_a_page_beside_the_circuit_says_what_each_layer_costs(tmp_path: Path) -> None:
    net, images, _ = prepared("depthwise")
    found = private_compile(net, images, tmp_path / "circuit", steps=2)
    page = (tmp_path / "circuit" / "circuit.html").read_text()
    assert found["page"].endswith("circuit.html") and found["left_to_the_client"] == ["softmax"]
    for words in ("What each layer costs", "levels left", "Answers side by side", "Left to the client: softmax"):
        assert words in page
    # classes of the circuit are held against those behind the softmax
    assert 0 <= found["agreement"] <= 1 and found["images"] == len(images)


def test_a_circuit_with_shortcuts_is_kept_and_read_again(tmp_path: Path) -> None:
    _, images, network = prepared("residual")
    circuit, parameters = pack_within(approximate_activations(network, images), images)
    save_circuit(tmp_path, circuit, parameters, "net")
    again, public = load_circuit(tmp_path)
    assert again.sources() == circuit.sources() and again.kinds() == circuit.kinds()
    assert np.array_equal(again.run(images[:1].numpy()), circuit.run(images[:1].numpy()))
    assert public.shape == (3, 8, 8)


def test_budgets_are_planned_beside_shortcuts() -> None:
    net, images, network = prepared("residual")
    found = cheapen(net, approximate_activations(network, images), images, "he=0.6x", steps=2, shift=0)
    assert found.after["he"] <= 0.6 * found.before["he"] and found.after["levels"] < found.before["levels"]


def test_teaching_brings_a_network_with_shortcuts_nearer() -> None:
    net, images, network = prepared("residual")
    fitted = approximate_activations(network, images)
    taught = adapt(net, fitted, images, steps=20, batch=10, shift=0)
    wanted = net(images).detach().double()
    before, after = (float(((n(images) - wanted) ** 2).mean()) for n in (fitted, taught))
    assert after < before


def test_a_network_deeper_than_any_ring_is_planned_for_levels() -> None:
    torch.manual_seed(0)
    parts = [m for _ in range(19) for m in (nn.Linear(6, 6), nn.SiLU())]
    net, images = nn.Sequential(nn.Flatten(), *parts, nn.Linear(6, 2)).eval(), torch.randn(12, 1, 2, 3)
    network = approximate_activations(read_network(net, images[:1]), images)
    with pytest.raises(FewerError, match=r"needs 20 levels, .* --budget levels=\d+"):
        pack_within(network, images)
    found = cheapen(net, network, images, "levels=12", steps=0)
    assert found.after["levels"] <= 12 and found.before == {"levels": 20.0}
    with pytest.raises(FewerError, match="needs 20 levels"):
        cheapen(net, network, images, "he=0.5x", steps=0)


def test_a_function_that_is_all_but_a_line_becomes_one_and_saves_a_level() -> None:
    x = np.linspace(-0.05, 0.05, 200)
    made = fit_squares(lambda v: 1 / (1 + np.exp(-v)), x)
    assert isinstance(made, Line) and np.abs(made(x) - 1 / (1 + np.exp(-x))).max() < 1e-5
    assert isinstance(fit_squares(lambda v: np.maximum(v, 0), x), Squares)
    assert fit_squares(lambda v: 3 + 0 * v, x)(x[:1]) == pytest.approx(3)
    _, images, network = prepared("table")
    assert kinds_of(approximate_activations(network, images)) == ["linear", "joint"]


@pytest.mark.parametrize("degree", [2, 4])
@pytest.mark.parametrize("size", [1e-3, 1.0, 300.0, 1e5])
def test_fits_do_not_depend_on_the_size_of_the_numbers(degree: int, size: float) -> None:
    x = np.random.default_rng(0).normal(0.3, 1, 3000)
    wanted = np.maximum(x, 0)
    ours, one = (fit_squares(lambda v: np.maximum(v, 0), s * x, degree) for s in (size, 1.0))
    assert np.allclose(ours(size * x) / size, one(x), atol=1e-6)
    assert np.square(ours(size * x) / size - wanted).mean() < 0.02


@pytest.mark.parametrize("degree", [2, 4])
def test_a_function_that_does_nothing_is_a_line(degree: int) -> None:
    x = np.random.default_rng(0).normal(-9, 1, 500)
    dead = fit_squares(lambda v: np.maximum(v, 0), x, degree)
    open_ = fit_squares(lambda v: np.maximum(v, 0), -x, degree)
    assert isinstance(dead, Line) and not dead(x).any()
    assert isinstance(open_, Line) and np.allclose(open_(-x), -x)


def test_maps_and_single_numbers_are_held_against_the_network_without_a_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for room in ("price", "trial"):
        monkeypatch.setattr(f"fewer.private.{room}.has_seal", lambda: False)
    net = plain(nn.Conv2d(1, 2, 3, padding=1), nn.SiLU(), nn.Conv2d(2, 1, 3, padding=1)).eval()
    found = private_compile(net, torch.randn(12, 1, 6, 6), tmp_path / "map")
    assert found["agreement"] is None and 0 <= found["distance"] < 0.5
    page = (tmp_path / "map" / "circuit.html").read_text()
    assert "squared distance" in page and "results of 4 images differ by" in page and "get the class" not in page
    net = plain(nn.Flatten(), nn.Linear(16, 6), nn.ReLU(), nn.Linear(6, 1)).eval()
    found = private_compile(net, torch.randn(40, 1, 4, 4), tmp_path / "one")
    assert found["agreement"] is None and found["images"] == 10 and found["apart"]


def test_pads_of_every_kind_are_linear() -> None:
    for mode in ("zeros", "reflect", "replicate", "circular"):
        net = plain(nn.Conv2d(1, 2, 3, padding=(2, 1), padding_mode=mode), nn.Tanh(), nn.Flatten(), nn.LazyLinear(2))
        images = torch.randn(6, 1, 7, 5)
        net(images)
        network = read_network(net.eval(), images[:1])
        assert torch.allclose(network(images), net(images).double(), atol=1e-5), mode
        made = approximate_activations(network, images)
        circuit, _ = pack_within(made, images)
        assert np.allclose(circuit.run(images[:2].numpy()), made(images[:2]).numpy(), atol=1e-7), mode


class _MaximumOverPlaces(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.conv, self.last, self.how = nn.Conv2d(1, 4, 3), nn.Linear(4, 3), how

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.conv(x))
        if self.how == "pool":
            return self.last(torch.nn.functional.adaptive_max_pool2d(y, 1).flatten(1))
        if self.how == "amax":
            return self.last(y.amax((-2, -1)))
        return self.last(y.flatten(2).max(2).values if self.how == "max" else y.amax(1).flatten(1)[:, :4])


@pytest.mark.parametrize("how", ["amax", "max"])
def test_a_global_maximum_that_is_written_out_is_the_average_that_the_module_is(how: str) -> None:
    torch.manual_seed(0)
    net, pool = _MaximumOverPlaces(how).eval(), _MaximumOverPlaces("pool").eval()
    pool.load_state_dict(net.state_dict())
    images = torch.randn(30, 1, 8, 8)
    made, wanted = (approximate_activations(read_network(n, images[:1]), images) for n in (net, pool))
    assert len(made.averaged) == 1  # what lies flat before its maximum does not change places with the activation
    assert how == "max" or torch.allclose(made(images), wanted(images))
    circuit, _ = pack_within(made, images)
    assert np.allclose(circuit.run(images.numpy()), made(images).numpy(), atol=1e-8)


def test_a_maximum_over_channels_is_told() -> None:
    with pytest.raises(FewerError, match="amax"):
        read_network(_MaximumOverPlaces("channels").eval(), torch.randn(1, 1, 8, 8))


class _TwoImages(nn.Module):
    def forward(self, left, right, scale=1.0):
        return (left - right).flatten(1) * scale


class _Chooses(nn.Module):
    def forward(self, x):
        return x.flatten(1) if x.sum() > 0 else -x.flatten(1)


@pytest.mark.parametrize(
    ("net", "words"),
    [
        (_TwoImages(), r"takes 2 inputs \(left, right\), and a circuit takes one image"),
        (_Chooses(), "decides by the numbers of an image what it computes"),
    ],
)
def test_networks_of_two_images_or_of_two_ways_are_told(net: nn.Module, words: str, capfd) -> None:
    with pytest.raises(FewerError, match=words):
        read_network(net, torch.randn(1, 1, 4, 4))
    said = capfd.readouterr()
    assert not said.out and not said.err
