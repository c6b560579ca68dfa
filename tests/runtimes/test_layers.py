"""Which nodes of an exported graph belong to which layer, however a runtime names what it has put together."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fewer.models.matching import match
from fewer.runtimes.layers import _owners, layer_ms
from fewer.runtimes.names import missing
from fewer.runtimes.planned import PlannedGraph, arrays_of

pytest.importorskip("onnx", reason='files for other runtimes need pip install "fewer[deploy]"')
X = torch.randn(1, 197, 192, generator=torch.Generator().manual_seed(0))


class Mlp(nn.Module):
    """Bias, activation, scale and a sum with what came in: all that runtimes make a part of a product."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(192), nn.Linear(192, 768), nn.Linear(768, 192)
        self.scale = nn.Parameter(torch.full((192,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.scale * self.down(nn.functional.gelu(self.up(self.norm(x))))


def planned() -> PlannedGraph:
    torch.manual_seed(0)
    net = nn.Sequential(*(Mlp() for _ in range(4))).eval()
    return PlannedGraph.of(net, {u.name: (u.name,) for u in match(net, X).units}, X)


def test_what_follows_number_by_number_belongs_to_the_layer_before():
    graph = planned()
    owners = _owners(graph, graph.model)
    made = {name: node for node in graph.model.graph.node for name in node.output}
    constants = {tensor.name for tensor in graph.model.graph.initializer}
    for node in graph.model.graph.node:
        if node.op_type == "MatMul":
            assert node.name in owners
        elif node.op_type in ("Erf", "Gelu", "Mul", "Add"):
            before = [made[name] for name in node.input if name in made and name not in constants]
            assert owners[node.name] in {owners.get(one.name) for one in before}
        else:
            assert owners.get(node.name) is None or node.op_type in ("Div", "Constant")
    assert len({layer for layer in owners.values() if layer}) == 8


@pytest.mark.skipif(missing("openvino") is not None, reason="OpenVINO is not installed")
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_openvino_shows_the_time_of_every_linear_layer(precision):
    graph = planned()
    plan = {name: precision for name in graph.layers if name}
    found, total = layer_ms(graph, "openvino", plan, arrays_of(X), 1)
    assert set(found) == set(plan) and min(found.values()) > 0
    assert sum(found.values()) > 0.5 * total  # the products are most of this network
