"""Models as people have them: wrapped, hooked, shared, compiled. Each works or is refused in a sentence, and stays."""

from __future__ import annotations

import functools
import sys
import types
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
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
from fewer.models.reorder import _outputs as outputs_of_reordered

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


class Unbatched(Net):
    """Calls its convolutions with one image at a time, without a batch."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.head(self.side(self.body(one).relu()).relu().mean((1, 2))) for one in x])


class EvalGivesNothing(Net):
    def eval(self) -> Any:
        super().eval()

    def train(self, mode: bool = True) -> Any:
        super().train(mode)


class GradientInside(Net):
    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            return torch.autograd.grad(self.plainly(x).square().sum(), x)[0]


class AnyAttribute(Net):
    """Has every attribute that is asked for."""

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name.startswith("__"):
                raise
            return None


def _lazy() -> nn.Module:
    return nn.Sequential(nn.LazyConv2d(8, 3), nn.LazyBatchNorm2d(), nn.ReLU(), nn.Flatten(), nn.LazyLinear(4))


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
    "one image at a time": Unbatched, "eval gives nothing": EvalGivesNothing, "gradients inside": GradientInside,
    "any attribute": AnyAttribute, "lazy": _lazy,
    "positions before images": lambda: Net(lambda n, x: n.side(n.body(x).relu()).permute(2, 3, 0, 1)),
    "rows of all images": lambda: Net(lambda n, x: n.head(n.side(n.body(x).relu()).permute(0, 2, 3, 1).reshape(-1, 8))),
    "weight_norm": lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 8, 3)), nn.Flatten()),
}  # fmt: skip


@pytest.mark.parametrize("name", WORK)
def test_it_is_compressed_and_the_original_stays(name: str) -> None:
    net = WORK[name]()
    before = {key: value.clone() for key, value in net.state_dict().items() if name != "lazy"}
    flags = [module.training for module in net.modules()]
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in net.modules()]
    run = fewer.compress(net, IMAGES, "weights=75%", settings=QUICK)
    # of weights that nobody trained, half of a layer on 6 images of noise may be worth more than the answer
    assert 0 < run.report.verdict.distortion < 10
    state = net.state_dict() if name != "lazy" else {}
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


class HandsItselfOut(Net):
    def __deepcopy__(self, memo: Any) -> Any:
        return self


class SharesALayer(Net):
    def __deepcopy__(self, memo: Any) -> Any:
        other = Net()
        other.side = self.side
        return other


class SharesWeights(Net):
    def __deepcopy__(self, memo: Any) -> Any:
        other = Net()
        other.side.weight = nn.Parameter(self.side.weight.detach())
        return other


class FillsItsOutput(Net):
    """Gives the same memory at every call, and so do its copies."""

    memory: dict[Any, Tensor] = {}  # noqa: RUF012

    def forward(self, x: Tensor) -> Tensor:
        found = self.plainly(x)
        return self.memory.setdefault(found.shape, torch.empty_like(found)).copy_(found)


class Wrapped(nn.Module):
    """As wrappers for training in parallel do: the state is that of what is inside."""

    def __init__(self) -> None:
        super().__init__()
        self.module = Net()

    def state_dict(self, *args: Any, **more: Any) -> Any:
        return self.module.state_dict(*args, **more)

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x)


class KeepsADictionary(Net):
    def get_extra_state(self) -> Any:
        return {"steps": 3}

    def set_extra_state(self, state: Any) -> None:
        pass


def _inside_itself() -> nn.Module:
    net = Net()
    net.side.back = net
    return net


def _in_a_thread(net: Net, x: Tensor) -> Tensor:
    with ThreadPoolExecutor(2) as pool:
        return torch.cat(list(pool.map(net.plainly, x.split(1))))


def _alone(net: Net, image: Tensor) -> Tensor:
    return net.plainly(image[None])[0]


def _train_raises() -> nn.Module:
    class Fixed(Net):
        def train(self, mode: bool = True) -> Any:
            raise RuntimeError("not here")

    return Fixed()


def _huge_inside() -> nn.Module:
    net = Net()
    net.body.weight.data.mul_(1e18)
    net.side.weight.data.mul_(1e-18)
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
    "hands itself out": (HandsItselfOut, r"a copy of the model .* holds weights of the original.*__deepcopy__"),
    "shares a layer": (SharesALayer, "a copy of layer 'side' .* holds weights of the original"),
    "shares weights": (SharesWeights, "a copy of layer 'side' .* holds weights of the original"),
    "fills its output": (FillsItsOutput, r"memory that its next call writes over.*\.clone\(\)"),
    "a wrapper without names": (Wrapped, r"does not hold 'module\.body\.weight' under that name"),
    "state that is no tensor": (KeepsADictionary, "state '_extra_state' is a dict"),
    "inside of itself": (_inside_itself, "its module 'side' holds a module that it is part of"),
    "in a thread": (lambda: Net(_in_a_thread), "layer 'body' runs in another thread"),
    "vmap": (lambda: Net(torch.vmap(_alone, (None, 0))), "layer 'body' runs inside of torch.func"),
    "train raises": (_train_raises, "evaluation mode.*not here"),
    "huge inside": (_huge_inside, "the input of layer 'side' is as large as"),
    "a nested output": (lambda: Net(lambda n, x: torch.nested.nested_tensor(list(n.plainly(x)))), "to_padded_tensor"),
    "nothing": (lambda: Net(lambda n, x: n.plainly(x)[:, :0]), "holds no numbers"),
    "a mask of infinity": (
        lambda: Net(lambda n, x: n.plainly(x) / torch.tensor([0.0, 1, 1, 1])),
        "a mask, say.*forward=",
    ),
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


def test_layers_without_a_batch_are_cut_as_those_with_one() -> None:
    looped = Net(lambda n, x: torch.cat([n.plainly(one[None]) for one in x]))
    wanted = fewer.compress(looped, IMAGES, "weights=60%", settings=QUICK)
    found = fewer.compress(Unbatched(), IMAGES, "weights=60%", settings=QUICK)
    assert {k: v.tolist() for k, v in found.masks.items()} == {k: v.tolist() for k, v in wanted.masks.items()}
    assert found.report.verdict.distortion == pytest.approx(wanted.report.verdict.distortion, rel=1e-4)


def test_layers_without_a_batch_stay_plain_when_the_others_are_accelerated(tmp_path: Any) -> None:
    run = fewer.compress(Unbatched(), IMAGES, "weights=60%", settings=QUICK, out=tmp_path / "run")
    fast = fewer.load(tmp_path / "run", Unbatched, accelerated=True, example=IMAGES[:1])
    with torch.no_grad():
        assert torch.allclose(fast(IMAGES), run.model(IMAGES), atol=0.02)


def test_a_model_that_needs_gradients_is_not_accelerated_and_that_is_told(tmp_path: Any) -> None:
    fewer.compress(GradientInside(), IMAGES, "weights=60%", settings=QUICK, out=tmp_path / "run")
    with pytest.raises(FewerError, match="does not run for inference alone"):
        fewer.load(tmp_path / "run", GradientInside, accelerated=True, example=IMAGES[:1])


def test_a_model_that_cannot_be_saved_is_compressed_in_memory() -> None:
    assert fewer.compress(KeepsADictionary(), IMAGES, "weights=75%", settings=QUICK).report.verdict.distortion < 1


def test_a_model_whose_hooks_keep_what_they_see_is_compressed(tmp_path: Any) -> None:
    """A function that holds a module goes on writing into it from a copy, also tensors that have gradients."""
    (tmp_path / "hooked.py").write_text(
        "import torch\nfrom torch import nn\nclass Net(nn.Module):\n    def __init__(self):\n"
        "        super().__init__()\n        torch.manual_seed(0)\n        self.seen = []\n"
        "        self.net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4))\n"
        "        self.net[0].register_forward_hook(lambda m, i, o: self.seen.append(o))\n"
        "    def forward(self, x):\n        return self.net(x)\n"
    )
    settings = QUICK.model_copy(update={"allocator": "auto", "baselines": ("uniform",)})
    run = fewer.compress(f"{tmp_path}/hooked.py:Net", IMAGES, "flops=75%", settings=settings)
    assert run.report.verdict.met


def test_a_compiled_model_is_compressed_and_loaded_as_the_module_inside(tmp_path: Any) -> None:
    net = Net()
    run = fewer.compress(torch.compile(net), IMAGES, "weights=75%", settings=QUICK, out=tmp_path / "run")  # type: ignore[arg-type]
    assert isinstance(run.model, Net) and run.report.verdict.met
    assert torch.equal(fewer.load(tmp_path / "run", Net)(IMAGES), run.model(IMAGES))
    (tmp_path / "net.py").write_text(
        "import torch\nfrom torch import nn\ndef make():\n    torch.manual_seed(0)\n"
        "    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4))\n"
        "    return torch.compile(net)\n"
    )
    spec = f"{tmp_path}/net.py:make"
    run = fewer.compress(spec, IMAGES, "weights=75%", settings=QUICK, out=tmp_path / "other")
    assert torch.equal(fewer.load(tmp_path / "other")(IMAGES), run.model(IMAGES))


def test_complex_numbers_of_an_output_count_as_pairs_of_real_ones() -> None:
    def waves(net: Net, x: Tensor) -> Tensor:
        return torch.view_as_complex(net.plainly(x).unflatten(-1, (-1, 2)))

    run = fewer.compress(Net(waves), IMAGES, "weights=75%", settings=QUICK)
    plain = fewer.compress(Net(), IMAGES, "weights=75%", settings=QUICK)
    assert abs(run.report.verdict.distortion - plain.report.verdict.distortion) < 1e-6


def test_complex_weights_that_are_no_numbers_are_refused() -> None:
    net = Net()
    net.filters = nn.Parameter(torch.full((2,), complex(float("nan"), 0.0)))
    with pytest.raises(FewerError, match="2 of 2 numbers of 'filters' are NaN"):
        fewer.compress(net, IMAGES, "weights=75%", settings=QUICK)


def test_a_model_that_gives_a_dataclass_is_held_against_itself_when_it_is_reordered() -> None:
    given = outputs_of_reordered(Net(lambda n, x: Answer(n.plainly(x))), IMAGES, None)
    assert [t.shape for t in given] == [(12, 4)]


class Routed(Net):
    """Each image goes to the expert that a gate prefers."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.experts = nn.Linear(8, 3), nn.ModuleList(nn.Linear(8, 8) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        rows = self.body(x).relu().flatten(2).transpose(1, 2).reshape(-1, 8)
        chosen, out = self.gate(3 * F.layer_norm(rows, (8,))).argmax(1), torch.zeros_like(rows)
        for number, expert in enumerate(self.experts):
            own = (chosen == number).nonzero().flatten()
            if len(own):
                out = out.index_add(0, own, expert(rows[own]))
        return (rows + out).view(len(x), -1, 8).mean(1)


def test_experts_that_are_chosen_by_values_are_cut_as_other_layers() -> None:
    torch.manual_seed(0)
    run = fewer.compress(Routed(), IMAGES, "weights=55%", settings=QUICK)
    assert sum(unit.name.startswith("experts") for unit in run.report.units) > 1  # what no image reaches stays
    assert 0 < run.report.verdict.distortion < 1
