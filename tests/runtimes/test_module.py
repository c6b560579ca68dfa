"""Any model in onnxruntime and OpenVINO gives what torch gives; what they do not take is run in torch."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
from torch import nn

from fewer.core.errors import FewerError
from fewer.runtimes.export import to_onnx
from fewer.runtimes.module import RuntimeModule
from fewer.runtimes.names import EXPORTED, missing
from fewer.runtimes.planned import PlannedGraph
from fewer.runtimes.session import open_session
from tests.runtimes.networks import NETWORKS, layers_of

RUNTIMES = [pytest.param(n, marks=pytest.mark.skipif(missing(n) is not None, reason=str(missing(n)))) for n in EXPORTED]


@pytest.fixture(scope="module")
def graphs():
    made: dict[str, tuple[nn.Module, torch.Tensor, PlannedGraph]] = {}

    def get(name: str):
        if name not in made:
            model, x = NETWORKS[name]()
            made[name] = (model, x, PlannedGraph.of(model, layers_of(model), x))
        return made[name]

    return get


def opened(planned: PlannedGraph, runtime: str, file=None, fallback=None) -> RuntimeModule:
    file = planned.model if file is None else file
    return RuntimeModule(
        open_session(runtime, file.SerializeToString(), 1), planned.shapes, planned.structure, fallback
    )


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_runtime_answers_as_torch_does(graphs, name, runtime):
    model, x, planned = graphs(name)
    with torch.no_grad():
        assert distance(opened(planned, runtime)(x), model(x)) < 1e-4


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("name", NETWORKS)
def test_every_layer_is_found_and_can_be_integers(graphs, name, runtime):
    model, x, planned = graphs(name)
    assert set(layers_of(model)) <= set(planned.layers)
    precisions = dict.fromkeys(layers_of(model), "int8")
    ranges = planned.find_ranges(runtime, precisions, x, 1)
    file = planned.file(runtime, precisions, ranges)
    assert sum(node.op_type == "DequantizeLinear" for node in file.graph.node) > len(precisions)
    with torch.no_grad():
        assert 1e-6 < distance(opened(planned, runtime, file)(x), model(x)) < 0.15


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_batches_of_another_length_are_split_and_other_sizes_run_in_torch(graphs, runtime):
    model, x, planned = graphs("convolutions without normalisation")
    fast = opened(planned, runtime, fallback=lambda: model)
    more = torch.cat([x] * 5)[:, :, :, :] * torch.linspace(0.5, 1.5, 5).repeat_interleave(len(x))[:, None, None, None]
    with torch.no_grad():
        assert distance(fast(more[:3]), model(more[:3])) < 1e-4
        wide = torch.randn(1, *x.shape[1:-1], x.shape[-1] + 8)
        with pytest.warns(UserWarning, match="run in torch"):
            got = fast(wide)
        assert torch.equal(got, model(wide))


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_an_operator_that_a_runtime_does_not_know_is_one_sentence(runtime):
    from onnx import TensorProto, helper

    node = helper.make_node("Nonsense", ["x"], ["y"], domain="nowhere")
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([node], "g", value[:1], value[1:])
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("nowhere", 1)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=8)
    with pytest.raises(FewerError, match="cannot run this model"):
        open_session(runtime, model.SerializeToString(), 1)


def test_a_dict_comes_back_as_one():
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(4, 2)

        def forward(self, x: torch.Tensor):
            return {"out": self.a(x), "more": (x + 1, None)}

    runtime = next((n for n in EXPORTED if missing(n) is None), None)
    if runtime is None:
        pytest.skip("no runtime is installed")
    model, x = Two().eval(), torch.randn(3, 4)
    found = opened(PlannedGraph.of(model, {"a": ("a",)}, x), runtime)(x)
    assert torch.allclose(found.out, model(x)["out"], atol=1e-5)
    assert found["more"][1] is None and torch.allclose(found["more"][0], x + 1)


class Steps(nn.Module):
    """Something that takes any number of steps: (samples, steps, 6)."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.map(x).amax(1)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_an_axis_may_be_of_any_length(runtime):
    model = Steps().eval()
    planned = PlannedGraph.of(model, {"map": ("map",)}, torch.randn(1, 5, 6), {1: "steps"})
    assert planned.free == (1,) and next(iter(planned.layers)) == "map"
    session = open_session(runtime, planned.model.SerializeToString(), 1)
    module = RuntimeModule(session, planned.shapes, planned.structure, free=planned.free)
    for samples, steps in ((1, 5), (1, 9), (3, 2), (2, 40)):
        x = torch.randn(samples, steps, 6)
        with torch.no_grad():
            assert torch.allclose(module(x), model(x), atol=1e-5)
    with pytest.raises(FewerError, match="takes inputs of"):
        module(torch.randn(1, 5, 7))
    ranges = planned.find_ranges(runtime, {"map": "int8"}, torch.randn(2, 11, 6), 1)
    assert ranges


def test_a_model_that_needs_the_number_is_written_for_one_length():
    class Fixed(Steps):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.map(x)[:, [i for i in range(x.shape[1]) if i % 2]].amax(1)

    planned = PlannedGraph.of(Fixed().eval(), {"map": ("map",)}, torch.randn(1, 6, 6), {1: "steps"})
    assert planned.free == () and planned.shapes == [(1, 6, 6)]
    with pytest.raises(FewerError, match="shall give the ranges"):
        planned.find_ranges("onnxruntime", {"map": "int8"}, torch.randn(2, 11, 6), 1)


class Named(NamedTuple):
    """Outputs that are known by name and by place."""

    logits: torch.Tensor
    maps: list[torch.Tensor]


@dataclass
class Answer:
    """An object of the model's own, which no exporter knows."""

    logits: torch.Tensor
    maps: list[torch.Tensor]
    loss: torch.Tensor | None = None


class Two(nn.Module):
    """A network that answers with such an object."""

    def __init__(self, kind: type) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.kind, self.body, self.head = kind, nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor):
        maps = self.body(x).relu()
        return self.kind(self.head(maps.mean((2, 3))), [maps])


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("kind", [Named, Answer])
def test_answers_with_names_keep_them(runtime: str, kind: type) -> None:
    model, x = Two(kind).eval(), torch.randn(1, 3, 6, 6)
    planned = PlannedGraph.of(model, layers_of(model), x)
    assert {"body", "head"} <= planned.layers.keys()
    fast = opened(planned, runtime)(x)
    with torch.no_grad():
        wanted = model(x)
    torch.testing.assert_close(fast.logits, wanted.logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(fast.maps[0], wanted.maps[0], rtol=1e-4, atol=1e-5)
    if kind is Named:
        logits, maps = fast
        assert logits is fast.logits and maps is fast.maps
    else:
        assert fast.loss is None


def test_what_a_model_keeps_of_its_call_stays_as_it_was() -> None:
    class Keeps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.last = nn.Linear(3, 2), None
            self.register_buffer("mean", torch.zeros(2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.last = self.body(x)
            self.mean = self.last.mean(0)
            self.more = [self.last]
            return self.last * 2

    model, x = Keeps().eval(), torch.randn(1, 3)
    with torch.no_grad():
        model(x)
    kept = model.last, model.mean, model.more[0]
    to_onnx(model, x)
    assert model.last is kept[0] and model.mean is kept[1]
    assert type(model.more[0]) is torch.Tensor
    copy.deepcopy(model)
