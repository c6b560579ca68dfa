"""Models as people have them: wrapped, hooked, shared, compiled. Each works or is refused in a sentence, and stays."""

from __future__ import annotations

import functools
import sys
import types
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fewer
from fewer.core.errors import FewerError
from fewer.engine.model_checks import check_model
from fewer.engine.settings import Settings
from fewer.models.plain import own_copy

IMAGES = torch.rand(12, 3, 8, 8, generator=torch.Generator().manual_seed(0))
QUICK = Settings(
    baselines=(), additivity=0, calibration=6, sensing=2, heldout=4, backend="serial", allocator="dp",
    sparsities=(0.5,), pattern="block:2x4",
)  # fmt: skip


class Net(nn.Module):
    def __init__(self, way: Callable[..., Any] | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.side, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1), nn.Linear(8, 4)
        self.way = way

    def features(self, x: Tensor) -> Tensor:
        return self.side(self.body(x).relu()).relu().mean((2, 3))

    def plainly(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))

    def forward(self, x: Tensor) -> Any:
        return self.plainly(x) if self.way is None else self.way(self, x)


@dataclass
class Answer:
    logits: Tensor
    count: int = 3


Pair = namedtuple("Pair", "logits rest")


class ModelOutput(OrderedDict):
    """As that of transformers: a dictionary with attributes."""


class Doubled(torch.autograd.Function):
    """Without a backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 2


def _autocast(net: Net, x: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return net.plainly(x)


def _low_inside(dtype: torch.dtype) -> Net:
    net = Net(lambda n, x: n.head(n.side(n.body(x).relu().to(dtype)).float().relu().mean((2, 3))))
    net.side.to(dtype)
    return net


def _shared() -> nn.Module:
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 192), nn.ReLU(), nn.Linear(192, 192), nn.Linear(192, 4))
    net[3].weight = net[1].weight
    return net


def _twice() -> nn.Module:
    layer = nn.Linear(192, 192)
    return nn.Sequential(nn.Flatten(), layer, nn.ReLU(), layer, nn.Linear(192, 4))


def _hooked() -> nn.Module:
    net = Net()
    net.body.register_forward_hook(lambda module, args, output: output * 2)
    net.register_forward_pre_hook(lambda module, args: (args[0] - 0.5,))
    net.side.register_full_backward_hook(lambda *_: None)
    return net


def _training() -> nn.Module:
    layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(288, 4)]
    return nn.Sequential(*layers).train()


def _instance_forward() -> nn.Module:
    net = Net()
    net.side.forward = types.MethodType(lambda self, x: F.conv2d(x, self.weight, self.bias), net.side)
    net.forward = types.MethodType(lambda self, x: self.plainly(x), net)
    return net


def _inference() -> nn.Module:
    with torch.inference_mode():
        return Net()


def _bound() -> nn.Module:
    net = Net(lambda n, x: n.head(n.kept(x)) + n.part(x).mean())
    net.kept, net.part = net.features, functools.partial(Net.features, net)
    return net


def _expanded() -> nn.Module:
    net = Net()
    net.head.weight = nn.Parameter(torch.randn(4, 1).expand(4, 8))
    return net


WORK: dict[str, Callable[[], nn.Module]] = {
    "a dictionary": lambda: Net(lambda n, x: {"logits": n.plainly(x), "count": 3}),
    "a tuple": lambda: Net(lambda n, x: (n.plainly(x), n.features(x))),
    "a named tuple": lambda: Net(lambda n, x: Pair(n.plainly(x), None)),
    "a dataclass": lambda: Net(lambda n, x: Answer(n.plainly(x))),
    "an output of transformers": lambda: Net(lambda n, x: ModelOutput(logits=n.plainly(x), loss=None)),
    "a number": lambda: Net(lambda n, x: n.plainly(x).sum()),
    "DataParallel": lambda: nn.DataParallel(Net()),
    "torch.fx": lambda: torch.fx.symbolic_trace(Net()),
    "shared weights": _shared, "a layer twice": _twice, "hooks": _hooked, "training": _training,
    "forward of its own": _instance_forward, "bound methods": _bound, "made in inference mode": _inference,
    "no_grad inside": lambda: Net(torch.no_grad()(Net.plainly)),
    "no backward": lambda: Net(lambda n, x: n.head(Doubled.apply(n.features(x)))),
    "NumPy inside": lambda: Net(lambda n, x: n.head(torch.from_numpy(n.features(x).detach().numpy() * 1))),
    "autocast": lambda: Net(_autocast), "half inside": lambda: _low_inside(torch.half),
    "bfloat16 inside": lambda: _low_inside(torch.bfloat16),
    "channels last": lambda: Net().to(memory_format=torch.channels_last),  # type: ignore[call-overload]
    "expanded weight": _expanded,
    "half": lambda: Net().half(), "bfloat16": lambda: Net().bfloat16(), "double": lambda: Net().double(),
    "weight_norm": lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 8, 3)), nn.Flatten()),
}  # fmt: skip


@pytest.mark.parametrize("name", WORK)
def test_it_is_compressed_and_the_original_stays(name: str) -> None:
    net = WORK[name]()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    flags = [module.training for module in net.modules()]
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in net.modules()]
    run = fewer.compress(net, IMAGES, "weights=75%", settings=QUICK)
    assert 0 < run.report.verdict.distortion < 1
    state = net.state_dict()
    assert state.keys() == before.keys() and all(torch.equal(state[key], value) for key, value in before.items())
    assert [module.training for module in net.modules()] == flags
    assert [(len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in net.modules()] == hooks


def _on_meta() -> nn.Module:
    net = Net()
    net.side.to("meta")
    return net


def _sparse() -> nn.Module:
    net = Net()
    net.head.weight = nn.Parameter(net.head.weight.detach().to_sparse(), requires_grad=False)
    return net


def _lambda() -> nn.Module:
    net = Net(lambda n, x: n.head(n.kept(x).mean((2, 3))))
    net.kept = lambda x: net.side(net.body(x).relu())
    return net


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "scripted": (lambda: torch.jit.script(nn.Sequential(nn.Conv2d(3, 8, 3))), "Python module that it was scripted"),
    "traced": (lambda: torch.jit.trace(Net().eval(), IMAGES[:1]), "Python module that it was scripted"),
    "traced inside": (
        lambda: nn.Sequential(torch.jit.trace(nn.Conv2d(3, 8, 3), IMAGES[:1]), nn.Flatten(), nn.Linear(288, 4)),
        "layer '0' is a TorchScript module",
    ),
    "on meta": (_on_meta, "weight of layer 'side' lies on 'meta'.*to_empty"),
    "a sparse weight": (_sparse, "weight of layer 'head' is a sparse tensor.*to_dense"),
    "a sparse output": (lambda: Net(lambda n, x: n.plainly(x).to_sparse()), "forward=.*to_dense"),
    "a lambda that holds the original": (_lambda, "runs layer '(body|side)' of the original"),
    "no tensor": (lambda: Net(lambda n, x: None), "no floating-point tensor.*forward="),
    "integers": (lambda: Net(lambda n, x: n.plainly(x).argmax(1)), "no floating-point tensor.*forward="),
    "too large": (lambda: Net(lambda n, x: n.plainly(x) * 1e25), "scale it"),
    "too small": (lambda: Net(lambda n, x: n.plainly(x) * 1e-30), "scale it"),
    "ends the program": (lambda: Net(lambda n, x: sys.exit(3)), "ends the program"),
    "NaN": (lambda: Net(lambda n, x: n.plainly(x) * float("nan")), "NaN or infinity"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_before_anything_is_measured(name: str, tmp_path: Any) -> None:
    make, says = REFUSED[name]
    with pytest.raises(FewerError, match=says) as told:
        fewer.compress(make(), IMAGES, "weights=75%", settings=QUICK, out=tmp_path / "run")
    assert "\n" not in str(told.value)
    assert not (tmp_path / "run" / "curves.npz").exists()


@pytest.mark.filterwarnings("ignore")
def test_weights_that_torch_has_quantized_are_refused() -> None:
    packed = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(4, 4)), {nn.Linear})
    with pytest.raises(FewerError, match=r"layer .0. .* packed weights"):
        own_copy(packed)


def test_a_compiled_model_is_checked_without_compiling_the_check() -> None:
    net = own_copy(torch.compile(Net(), backend="eager"))  # type: ignore[arg-type]
    assert check_model(net, IMAGES[:4], QUICK).differentiable


def test_a_network_beside_the_model_may_be_called() -> None:
    beside = nn.Conv2d(3, 3, 1)
    net = Net(lambda n, x: n.plainly(beside(x)))
    assert check_model(net, IMAGES, QUICK).differentiable


def test_an_input_that_is_written_to_gives_the_very_same_result() -> None:
    def shifted(net: Net, x: Tensor) -> Tensor:
        return net.plainly(x.sub_(0.5).div_(0.25))

    plain = fewer.compress(Net(lambda n, x: n.plainly((x - 0.5) / 0.25)), IMAGES, "weights=75%", settings=QUICK)
    wrote = fewer.compress(Net(shifted), IMAGES, "weights=75%", settings=QUICK)
    assert plain.report.verdict.distortion == pytest.approx(wrote.report.verdict.distortion, rel=1e-6)
