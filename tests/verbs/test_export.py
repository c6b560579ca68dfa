"""Exported files give the model's own output, say what they lose, and are never half-written."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from torch import nn

from fewer.core.errors import FewerError
from fewer.engine import export_check
from fewer.formats.integers import rounded
from fewer.kernels import native
from fewer.models.artefact import load_artefact, save_artefact
from fewer.models.vit import VisionTransformer
from fewer.tokens.blocks import merge_after
from fewer.verbs import export as module
from fewer.verbs.export import export


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 36, 32)).eval()


@pytest.fixture
def run(tmp_path):
    model = net()
    mask = torch.zeros(32, 576, dtype=torch.bool)
    mask[:16] = True
    with torch.no_grad():
        model[3].weight.copy_(rounded(model[3].weight * mask, "int8"))
    units = [{"name": "3", "pattern": "block:16x16", "sparsity": 0.5, "precision": "int8", "mask": mask}]
    save_artefact(tmp_path / "run", model, units, {"kind": "object", "class": "Sequential"})
    return tmp_path / "run"


@pytest.fixture
def lib_or_skip():
    if not native.available():
        pytest.skip("the native library is not built")


X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def needs_deploy() -> None:
    if not all(importlib.util.find_spec(n) for n in ("onnx", "onnxscript", "onnxruntime")):
        pytest.skip("needs the [deploy] extra")


@pytest.mark.parametrize("to", ["onnx", "torch"])
def test_the_file_gives_the_models_output(run, to):
    if to == "onnx":
        needs_deploy()
    made = export(run, to, example=X, architecture=net)
    assert made.difference is not None and made.difference < 1e-5
    assert made.path.stat().st_size == made.bytes and made.path.parent == run
    text = " ".join(made.lost)
    assert "1 pruned layers" in text and "input size is fixed" in text
    assert ("1 of 1 int8 layers hold integers" if to == "onnx" else "layers of int8 hold their rounded values") in text
    assert made.integers == (to == "onnx")
    with pytest.raises(FewerError, match="--overwrite"):
        export(run, to, example=X, architecture=net)
    assert export(run, to, example=X, architecture=net, overwrite=True).bytes == made.bytes


def test_a_wrong_file_is_not_kept(run, monkeypatch):
    monkeypatch.setattr(module, "change_of", lambda *_: (0.5, ()))
    files = sorted(p.name for p in run.iterdir())
    with pytest.raises(FewerError, match="another output"):
        export(run, "torch", example=X, architecture=net)
    assert sorted(p.name for p in run.iterdir()) == files


def test_bad_input(run, monkeypatch, tmp_path):
    with pytest.raises(FewerError, match="did you mean 'onnx'"):
        export(run, "onx")
    with pytest.raises(FewerError, match="OpenVINO read ONNX: --to onnx"):
        export(run, "openvino")
    with pytest.raises(FewerError, match="give example="):
        export(run, "torch", architecture=net)
    with pytest.raises(FewerError, match="does not exist"):
        export(run, "torch", example=X, architecture=net, out=tmp_path / "no" / "folder.pt2")
    monkeypatch.setattr("fewer.runtimes.export.missing", lambda _: "onnx is not installed: pip install 'fewer[deploy]'")
    with pytest.raises(FewerError, match=r"\[deploy\]"):
        export(run, "onnx", example=X, architecture=net)


def test_static_activations_are_rounded_in_the_file(run):
    needs_deploy()
    images = torch.randn(24, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    made = export(run, example=X, architecture=net, activations="static", images=images)
    assert made.difference is not None and 1e-4 < made.difference < 0.05  # bytes cost something, and not much
    text = " ".join(made.lost)
    assert "1 of 1 int8 layers" in text and "found on 18 images" in text and "6 other images" in text
    import onnx

    kinds = [node.op_type for node in onnx.load(made.path).graph.node]
    assert kinds.count("QuantizeLinear") == 1 and kinds.count("DequantizeLinear") == 2


@pytest.mark.parametrize("activations", ["float", "static"])
def test_openvino_reads_the_integers(run, activations):
    needs_deploy()
    openvino = pytest.importorskip("openvino")
    images = torch.randn(24, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    made = export(run, example=X, architecture=net, activations=activations, images=images)
    exact = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}
    got = torch.from_numpy(openvino.compile_model(str(made.path), "CPU", exact)(X.numpy())[0])
    with torch.no_grad():
        wanted = load_artefact(run, net)(X)
    assert float((got - wanted).norm() / wanted.norm()) < (1e-5 if activations == "float" else 0.05)


def test_static_activations_need_images_and_int8(run, tmp_path):
    needs_deploy()
    with pytest.raises(FewerError, match="for ONNX only"):
        export(run, "torch", example=X, architecture=net, activations="static")
    with pytest.raises(FewerError, match="--images"):
        export(run, example=X, architecture=net, activations="static")
    with pytest.raises(FewerError, match="two images"):
        export(run, example=X, architecture=net, activations="static", images=X[:1])
    with pytest.raises(FewerError, match="did you mean 'static'"):
        export(run, example=X, architecture=net, activations="statics")
    save_artefact(tmp_path / "plain", net(), [], {"kind": "object", "class": "Sequential"})
    with pytest.raises(FewerError, match="has none"):
        export(tmp_path / "plain", example=X, architecture=net, activations="static", images=X)


def test_kernels_go_along_as_operators(run, lib_or_skip):
    made = export(run, "kernels", example=X, architecture=net)
    assert made.path.suffix == ".pt2" and made.difference is not None and made.difference < 1e-6
    assert any("import fewer.kernels.ops" in sentence for sentence in made.lost)
    program = torch.export.load(made.path)
    assert program.module()(X).shape == (2, 32)


def test_int8_layers_that_are_not_found_again_are_told(run, monkeypatch):
    needs_deploy()
    monkeypatch.setattr(module, "with_integers", lambda *_: [])
    made = export(run, example=X, architecture=net)
    assert made.integers == 0 and "none of the 1 int8 layers" in " ".join(made.lost)
    with pytest.raises(FewerError, match="found again"):
        export(run, example=X, architecture=net, overwrite=True, activations="static", images=X)


def test_openvino_reads_a_merge_that_leaves_none_of_the_first_set(tmp_path):
    needs_deploy()
    openvino = pytest.importorskip("openvino")
    model = merge_after(VisionTransformer(32, 8, width=16, depth=2, heads=2).eval(), {"blocks.0": 8, "blocks.1": 0})
    x = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    module._onnx(model, x, tmp_path / "model.onnx", {})
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    got = torch.from_numpy(openvino.compile_model(str(tmp_path / "model.onnx"), "CPU", exact)(x.numpy())[0])
    with torch.no_grad():
        torch.testing.assert_close(got, model(x), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_file_has_the_numbers_of_its_model(tmp_path, dtype):
    needs_deploy()
    import onnx

    save_artefact(tmp_path / "run", net().to(dtype), [], {"kind": "object", "class": "Sequential"})
    made = export(tmp_path / "run", example=X, architecture=lambda: net().to(dtype))
    kinds = {torch.float16: onnx.TensorProto.FLOAT16, torch.bfloat16: onnx.TensorProto.BFLOAT16}
    graph = onnx.load(made.path).graph
    assert {value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)} == {
        kinds.get(dtype, onnx.TensorProto.DOUBLE)
    }
    # onnxruntime has no convolution of float64 and is fed no bfloat16: the file is whole, and the reader is told
    assert (made.difference is None) == (dtype != torch.float16)
    assert ("its output was not compared" in " ".join(made.lost)) == (dtype != torch.float16)


@pytest.mark.parametrize("batch", [0, -1, 65_537, 10**30, 1.5, True, None])
def test_a_batch_that_is_none_is_told(run, batch):
    with pytest.raises(FewerError, match="must be a whole number from 1 to 65536"):
        export(run, "torch", deploy_batch=batch)


class Asks(nn.Module):
    """Code that asks for values, which torch.export refuses: of a buffer, or of its input."""

    def __init__(self, of_input: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.of_input, self.layer = of_input, nn.Linear(8, 5)
        self.register_buffer("limits", torch.tensor([0.5, 2.0]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.layer(x)
        asked = x.mean() if self.of_input else self.limits.max()
        return y.clamp(max=float(asked)) if float(asked) > 0.1 else y


def saved(tmp_path, of_input):
    save_artefact(tmp_path / "run", Asks(of_input).eval(), [], {"kind": "object", "class": "Asks"})
    return lambda: Asks(of_input).eval()


def test_code_that_torch_export_refuses_is_traced_and_said(tmp_path):
    needs_deploy()
    make = saved(tmp_path, False)
    made = export(tmp_path / "run", example=X.mean((1, 2)), architecture=make)
    assert made.difference is not None and made.difference < 1e-5
    assert "so it was traced" in " ".join(made.lost) and "4 other inputs" in " ".join(made.lost)


def test_a_trace_that_fixed_a_decision_about_the_input_is_refused(tmp_path):
    needs_deploy()
    make = saved(tmp_path, True)
    with pytest.raises(FewerError, match="decides something from their values"):
        export(tmp_path / "run", example=X.mean((1, 2)).abs(), architecture=make)
    assert not (tmp_path / "run" / "model.onnx").exists()


class Picky(Asks):
    """It also refuses inputs that are none of its own."""

    def __init__(self, most: float) -> None:
        super().__init__(False)
        self.most = most

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if float(x.abs().max()) > self.most:
            raise ValueError("out of range")
        return super().forward(x)


@pytest.mark.parametrize(("most", "count"), [(1.0, "2 other inputs"), (1e-9, "1 other input")])
def test_a_trace_is_compared_on_those_other_inputs_that_the_model_takes(tmp_path, most, count):
    needs_deploy()
    x = torch.linspace(-0.9, 0.9, 8)[None] * most  # turned around it is taken, and three times as much is not
    save_artefact(tmp_path / "run", Picky(most).eval(), [], {"kind": "object", "class": "Picky"})
    told = " ".join(export(tmp_path / "run", example=x, architecture=lambda: Picky(most).eval()).lost)
    assert "so it was traced" in told and f"output for {count}" in told


def test_a_trace_that_no_other_input_can_check_is_refused(tmp_path):
    with pytest.raises(FewerError, match="takes none of those"):
        export_check.check_traced(Picky(-1.0), torch.ones(1, 8), tmp_path / "none.onnx", "its code asks for a value")


def test_a_trace_that_nothing_can_check_is_refused(tmp_path, monkeypatch):
    needs_deploy()
    make = saved(tmp_path, False)
    monkeypatch.setattr(export_check, "find_spec", lambda _: None)
    with pytest.raises(FewerError, match="that needs onnxruntime"):
        export(tmp_path / "run", example=X.mean((1, 2)), architecture=make)


def test_every_output_of_a_file_is_compared_and_not_the_first_alone() -> None:
    class Two(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x, 2 * x

    x = torch.randn(3, 4)
    assert export_check._change(lambda x: [x, 2 * x], Two(), [x]) == 0
    assert export_check._change(lambda x: [x, x], Two(), [x]) == pytest.approx(0.5)
    # of an output that is nothing but rounding, a change is none
    assert export_check._change(lambda x: [x, 1e-9 * x], lambda x: (x, 0 * x), [x]) < 1e-4  # type: ignore[arg-type]


class Pair(nn.Module):
    """A network of two inputs with one encoder."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head = nn.Linear(8, 16), nn.Linear(16, 3)

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> dict[str, torch.Tensor]:
        a, b = self.body(a).relu(), self.body(b).relu()
        return {"both": self.head(a * b), "far": (a - b).square().sum(1)}


@pytest.mark.parametrize("to", ["onnx", "torch"])
def test_a_model_of_several_inputs_is_exported(tmp_path, to):
    if to == "onnx":
        needs_deploy()
    save_artefact(tmp_path / "run", Pair().eval(), [], {"kind": "object", "class": "Pair"})
    given = torch.randn(2, 8), torch.randn(2, 8)
    made = export(tmp_path / "run", to, example=given, architecture=Pair)
    assert made.difference is not None and made.difference < 1e-5
    with pytest.raises(FewerError, match=r"2 arguments \(a, b\).*example="):
        export(tmp_path / "run", to, architecture=Pair, overwrite=True)
    with pytest.raises(FewerError, match="a tuple of tensors"):
        export(tmp_path / "run", to, example=(1, 2), architecture=Pair, overwrite=True)  # type: ignore[arg-type]
    with pytest.raises(FewerError, match="models of one input"):
        export(tmp_path / "run", "onnx", example=given, architecture=Pair, activations="static", overwrite=True)
