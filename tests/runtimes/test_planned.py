"""A file that is made for its time has the ranges of real images: time depends on them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("onnx")

from fewer.runtimes.names import EXPORTED, missing
from fewer.runtimes.planned import PlannedGraph

RUNTIMES = [pytest.param(n, marks=pytest.mark.skipif(missing(n) is not None, reason=str(missing(n)))) for n in EXPORTED]


def numbers(file, ending: str) -> dict[str, np.ndarray]:
    from onnx import numpy_helper

    return {t.name: numpy_helper.to_array(t) for t in file.graph.initializer if t.name.endswith(ending)}


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_file_for_timing_has_the_bytes_of_the_file_that_is_used(runtime):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU6(), nn.Conv2d(8, 4, 1)).eval()
    images = torch.randn(6, 3, 8, 8)
    planned = PlannedGraph.of(net, {"0": ("0",), "2": ("2",)}, images[:1], images=images)
    precisions = {"0": "int8", "2": "int8"}
    timed = planned.file(runtime, precisions)
    # what comes out of ReLU6 has its zero at byte 0 and ends at 6, so that a runtime can leave the ReLU6 out
    zeros, scales = numbers(timed, "_bytes_zero"), numbers(timed, "_bytes_scale")
    activated = [name for name, zero in zeros.items() if zero == 0]
    assert activated and all(scales[name.replace("_zero", "_scale")] * 255 <= 6.001 for name in activated)
    used = planned.file(runtime, precisions, planned.find_ranges(runtime, precisions, images, 1))
    assert [node.op_type for node in used.graph.node] == [node.op_type for node in timed.graph.node]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_example_gives_the_ranges_where_no_images_are_known(runtime):
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    planned = PlannedGraph.of(net, {"0": ("0",), "2": ("2",)}, torch.rand(1, 4))
    file = planned.file(runtime, {"0": "int8", "2": "int8"})
    assert all(zero == 0 for zero in numbers(file, "_bytes_zero").values())  # nothing here is below zero


def test_a_weight_that_is_an_answer_is_not_turned():
    from onnx import TensorProto, checker, helper, numpy_helper

    from fewer.runtimes.export import _turn_weights

    weight = numpy_helper.from_array(np.arange(6, dtype=np.float32).reshape(2, 3), "w")
    turned = helper.make_node("Transpose", ["w"], ["wt"], perm=[1, 0])
    inside, outside = (helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", [1]), ("wt", [3, 2])))
    model = helper.make_model(helper.make_graph([turned], "g", [inside], [outside], [weight]))
    _turn_weights(model)
    checker.check_model(model)
    assert [node.op_type for node in model.graph.node] == ["Transpose"]


def test_a_weight_that_a_branch_reads_is_not_turned():
    from onnx import TensorProto, checker, helper, numpy_helper

    from fewer.runtimes.export import _turn_weights

    weight = numpy_helper.from_array(np.arange(6, dtype=np.float32).reshape(2, 3), "w")
    answer = helper.make_tensor_value_info("y", TensorProto.FLOAT, [3, 2])
    branches = [
        helper.make_graph([helper.make_node("Identity", ["wt"], [name])], name, [],
                          [helper.make_tensor_value_info(name, TensorProto.FLOAT, [3, 2])])
        for name in ("yes", "no")
    ]  # fmt: skip
    nodes = [
        helper.make_node("Transpose", ["w"], ["wt"], perm=[1, 0]),
        helper.make_node("If", ["x"], ["y"], then_branch=branches[0], else_branch=branches[1]),
    ]
    asked = helper.make_tensor_value_info("x", TensorProto.BOOL, [])
    model = helper.make_model(helper.make_graph(nodes, "g", [asked], [answer], [weight]))
    _turn_weights(model)
    checker.check_model(model)
    assert [node.op_type for node in model.graph.node] == ["Transpose", "If"]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_numbers_that_are_none_give_a_range(runtime):
    class Divided(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(1 / x)  # infinite where a pixel is 0

    planned = PlannedGraph.of(Divided().eval(), {"layer": ("layer",)}, torch.tensor([[0.0, 1.0, 2.0, 4.0]]))
    scales = numbers(planned.file(runtime, {"layer": "int8"}), "_bytes_scale")
    assert scales and all(np.isfinite(scale) and scale <= 1 / 255 + 1e-6 for scale in scales.values())
