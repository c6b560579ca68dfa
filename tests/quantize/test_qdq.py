"""Integers in an ONNX graph: found whatever the exporter did to the weights, and nothing else is touched."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from fewer.formats.integers import rounded
from fewer.quantize.qdq import InputRange, input_ranges, with_integers

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnx.reference")
helper, numpy_helper = onnx.helper, onnx.numpy_helper


def graph_of(nodes: list, constants: dict[str, np.ndarray], shape: tuple[int, ...]) -> onnx.ModelProto:
    value = helper.make_tensor_value_info
    return helper.make_model(
        helper.make_graph(
            nodes,
            "g",
            [value("x", onnx.TensorProto.FLOAT, shape)],
            [value("y", onnx.TensorProto.FLOAT, [None] * len(shape))],
            [numpy_helper.from_array(v, n) for n, v in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", 21)],
    )


def answer(graph: onnx.ModelProto, x: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(onnx.reference.ReferenceEvaluator(graph).run(None, {"x": x.numpy()})[0])


def weight(*shape: int, seed: int = 0) -> torch.Tensor:
    made = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return rounded(made.flatten(1), "int8").view(shape)


@pytest.mark.parametrize("kind", ["matmul", "gemm", "conv"])
@pytest.mark.parametrize("ranges", [False, True])
def test_a_weight_is_found_where_the_exporter_put_it(kind, ranges):
    if kind == "conv":
        w, x = weight(6, 4, 3, 3), torch.randn(1, 4, 5, 5, generator=torch.Generator().manual_seed(1))
        # a normalisation was multiplied in: other row scales, one of them negative
        stored = w * torch.tensor([0.3, -2.0, 1.0, 7.0, 0.01, 1.5])[:, None, None, None]
        node = helper.make_node("Conv", ["x", "w"], ["y"])
    else:
        w, x = weight(6, 8), torch.randn(3, 8, generator=torch.Generator().manual_seed(1))
        stored = w if kind == "gemm" else w.T
        node = helper.make_node(*(("Gemm", ["x", "w"], ["y"]) if kind == "gemm" else ("MatMul", ["x", "w"], ["y"])),
                                **({"transB": 1} if kind == "gemm" else {}))  # fmt: skip
    graph = graph_of([node], {"w": stored.contiguous().numpy()}, tuple(x.shape))
    before = answer(graph, x)
    how = InputRange.of(float(x.min()), float(x.max()))
    assert with_integers(graph, {"layer": w, "absent": weight(6, 9)}, {"layer": how} if ranges else None) == ["layer"]
    onnx.checker.check_model(graph)
    kept = {t.name: numpy_helper.to_array(t) for t in graph.graph.initializer}
    assert "w" not in kept and kept["w_int8"].dtype == np.int8 and np.abs(kept["w_int8"]).max() == 64
    if ranges:  # the very same as rounding the input
        plain = graph_of([node], {"w": stored.contiguous().numpy()}, tuple(x.shape))
        torch.testing.assert_close(answer(graph, x), answer(plain, how.rounded(x)), rtol=1e-4, atol=1e-4)
    else:
        torch.testing.assert_close(answer(graph, x), before, rtol=1e-5, atol=1e-5)


def test_other_weights_stay_as_they_are():
    w, other = weight(6, 8), torch.randn(5, 6, generator=torch.Generator().manual_seed(3))
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("MatMul", ["h", "v"], ["y"])]
    graph = graph_of(nodes, {"w": w.T.contiguous().numpy(), "v": other.T.contiguous().numpy()}, (3, 8))
    # one that is not on its own grid (it was changed after it had been rounded) is not found either
    assert with_integers(graph, {"a": w, "b": other}) == ["a"]
    assert [n.op_type for n in graph.graph.node] == ["DequantizeLinear", "MatMul", "MatMul"]


@pytest.mark.parametrize("names", [["first"], ["first", "second"]])
def test_a_weight_that_several_layers_share_is_stored_once(names):
    """Left alone where more than one product read it, it stayed in floating point."""
    w, x = weight(8, 8), torch.randn(3, 8, generator=torch.Generator().manual_seed(1))
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Add", ["h", "w0"], ["a"]),
        helper.make_node("MatMul", ["a", "w"], ["b"]),
        helper.make_node("Gather", ["w", "rows"], ["c"], axis=0),  # and something else reads it too
        helper.make_node("Add", ["b", "c"], ["y"]),
    ]
    constants = {"w": w.T.contiguous().numpy(), "w0": np.float32([0.5]), "rows": np.int64([1, 0, 2])}
    hows = [InputRange(0.02, 128), InputRange(0.05, 100)]
    plain = answer(graph_of(nodes, constants, (3, 8)), x)
    turned = w.T[[1, 0, 2]]
    assert torch.allclose(plain, (x @ w.T + 0.5) @ w.T + turned, atol=1e-4)
    graph = graph_of(nodes, constants, (3, 8))
    assert with_integers(graph, dict.fromkeys(names, w)) == names
    onnx.checker.check_model(graph)
    assert "w" not in {t.name for t in graph.graph.initializer}
    assert [n.op_type for n in graph.graph.node].count("DequantizeLinear") == 1
    torch.testing.assert_close(answer(graph, x), plain, rtol=1e-5, atol=1e-4)
    # each layer has its own range; a layer that runs twice has one
    graph = graph_of(nodes, constants, (3, 8))
    with_integers(graph, dict.fromkeys(names, w), dict(zip(names, hows, strict=False)))
    wanted = hows[len(names) - 1].rounded(hows[0].rounded(x) @ w.T + 0.5) @ w.T + turned
    torch.testing.assert_close(answer(graph, x), wanted, rtol=1e-4, atol=1e-3)


def test_layers_that_read_the_same_tensor_share_its_rounding():
    nodes = [helper.make_node("MatMul", ["x", n], [f"h{n}"]) for n in ("q", "k")]
    nodes.append(helper.make_node("Add", ["hq", "hk"], ["y"]))
    q, k = weight(6, 8), weight(6, 8, seed=1)
    graph = graph_of(nodes, {"q": q.T.contiguous().numpy(), "k": k.T.contiguous().numpy()}, (3, 8))
    how = InputRange(0.1, 100)
    assert sorted(with_integers(graph, {"q": q, "k": k}, {"q": how, "k": how})) == ["k", "q"]
    assert [n.op_type for n in graph.graph.node].count("QuantizeLinear") == 1
    answer(graph, torch.randn(3, 8))  # nodes stand in an order in which they can run


def test_a_range_is_the_one_that_loses_least():
    net = nn.Sequential(nn.ReLU(), nn.Linear(64, 2)).eval()
    x = torch.randn(2000, 64, generator=torch.Generator().manual_seed(0))
    x[0, 0] = 100.0  # among so many values worth clipping
    found = input_ranges(net, ["1"], x.split(500))["1"]
    assert found.zero == 0 and found.scale < 0.99 * 100 / 255
    error = {
        s: float((InputRange(s, 0).rounded(x.relu()) - x.relu()).square().mean()) for s in (found.scale, 100 / 255)
    }
    assert error[found.scale] <= error[100 / 255]
    assert not net[1]._forward_pre_hooks


def test_a_layer_that_is_not_run_has_no_range():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x):
            return self.used(x)

    assert list(input_ranges(Net(), ["used", "idle"], [torch.randn(3, 2)])) == ["used"]
