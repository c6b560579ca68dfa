"""Dense rivals on the runtimes that their users would take: OpenVINO, onnxruntime, Torch-Pruning in front of OpenVINO.

Each comes as a module with torch tensors in and out, for one image at a time, so that it is judged like any model.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


class Runtime(nn.Module):
    """A compiled model of a deployment runtime, called image by image."""

    def __init__(self, run: Any) -> None:
        super().__init__()
        self.run = run

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([torch.from_numpy(self.run(image[None].numpy()).copy()) for image in images])


def openvino(model: nn.Module, images: Tensor, kind: str, threads: int) -> Runtime:
    """``fp32``, ``bf16`` (inference precision) or ``int8`` (NNCF post-training quantization with its defaults)."""
    import nncf
    import openvino as ov

    converted = ov.convert_model(model, example_input=images[:1], input=[(1, *images.shape[1:])])
    if kind == "int8":
        transformer = any(isinstance(m, nn.LayerNorm) for m in model.modules())
        converted = nncf.quantize(
            converted,
            nncf.Dataset([image[None].numpy() for image in images]),
            model_type=nncf.ModelType.TRANSFORMER if transformer else None,
            subset_size=len(images),
        )
    settings = {
        "INFERENCE_PRECISION_HINT": "bf16" if kind == "bf16" else "f32",
        "INFERENCE_NUM_THREADS": str(threads),
        "PERFORMANCE_HINT": "LATENCY",
        "ENABLE_CPU_PINNING": "NO",
    }
    request = ov.Core().compile_model(converted, "CPU", settings).create_infer_request()

    def run(image: Any) -> Any:
        request.infer([image])
        return request.get_output_tensor(0).data

    return Runtime(run)


def onnxruntime(model: nn.Module, images: Tensor, kind: str, threads: int) -> Runtime:
    """``fp32``, ``int8 dynamic`` or ``int8 static`` (QDQ, calibrated on the images), per channel."""
    import onnxruntime as ort
    from onnxruntime import quantization as q
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder:
        path, cleaned, done = (str(Path(folder) / n) for n in ("m.onnx", "c.onnx", "q.onnx"))
        torch.onnx.export(model, (images[:1],), path, dynamo=True, verbose=False, external_data=False)
        used = path
        if kind != "fp32":
            quant_pre_process(path, cleaned, skip_symbolic_shape=True)
            used = done
        if kind == "int8 dynamic":
            q.quantize_dynamic(cleaned, done, weight_type=q.QuantType.QInt8, per_channel=True)
        elif kind == "int8 static":
            q.quantize_static(
                cleaned,
                done,
                _reader(q, images, ort.InferenceSession(path).get_inputs()[0].name),
                quant_format=q.QuantFormat.QDQ,
                activation_type=q.QuantType.QUInt8,
                weight_type=q.QuantType.QInt8,
                per_channel=True,
            )
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 3
        session = ort.InferenceSession(used, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return Runtime(lambda image: session.run(None, {name: image})[0])


def _reader(quantization: Any, images: Tensor, name: str) -> Any:
    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.feeds: Iterator[dict] = iter([{name: image[None].numpy()} for image in images])

        def get_next(self) -> dict | None:
            return next(self.feeds, None)

    return Reader()


def torch_pruned(model: nn.Module, example: Tensor, share: float, scope: str) -> nn.Module:
    """Torch-Pruning with its group magnitude, no training: ``uniform``, ``global`` or ``isomorphic``; channels out.

    What the network gives out keeps its width: only inner channels, MLP units and attention heads' dimensions go.
    """
    import torch_pruning as tp

    pruned = copy.deepcopy(model).eval().requires_grad_(True)
    linears = {n: m for n, m in pruned.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))}
    transformer = any(n.endswith("attn.qkv") for n in linears)
    # what writes to the residual stream keeps its width; attention of this network is written for a fixed width
    kept = [m for n, m in linears.items() if transformer and not n.endswith("mlp.fc1")]
    kept += [m for n, m in linears.items() if n in ("head", "classifier.1")]
    with torch.enable_grad():
        pruner = tp.pruner.BasePruner(
            pruned,
            example,
            importance=tp.importance.GroupMagnitudeImportance(p=2),
            global_pruning=scope != "uniform",
            isomorphic=scope == "isomorphic",
            pruning_ratio=share,
            max_pruning_ratio=0.95,
            ignored_layers=kept,
            round_to=8,
        )
        pruner.step()
    return pruned.requires_grad_(False)
