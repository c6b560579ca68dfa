"""Native integer softmax, GELU and LayerNorm against torch and OpenVINO, from accumulators to what is read next.

All runtimes get the int32 accumulators of a product of bytes and give what the next product of bytes reads: int8, or
probabilities of 16 bits (8 in OpenVINO). Ours is integer arithmetic, bit for bit as specified; the others turn to
floating point and back. "torch, floats only" is the bare function on floats that are there already. Rounds are taken in
turns, one thread, processor time, so that other jobs on the machine are not counted. The last rows are whole
networks: DINOv2 ViT-S in integers (ours, and the same ONNX file in onnxruntime), in fp32, and in OpenVINO's int8 as its
own tool NNCF makes it (softmax, GELU and LayerNorm stay floating point there), with batches of one and ranges of eight
real photos.

    OMP_NUM_THREADS=1 python benchmarks/integer_kernels.py [--rounds 200] [--only parts|networks]

Writes results/integer_kernels.csv; --only leaves the other rows as they are, and those of another instruction set stay
(FEWER_ISA=avx2 ATEN_CPU_CAPABILITY=avx2 before the command takes torch and ours back to AVX2).
"""

from __future__ import annotations

import argparse
import csv
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from approximations import MODEL, smaller
from kernels_common import interleaved
from PIL import Image
from rival_runtimes import openvino as openvino_network
from torch import Tensor, nn

from fewer.approximate.compile import compile_transformer
from fewer.approximate.native import activation_table, exponential_of
from fewer.approximate.onnx import export_onnx
from fewer.approximate.transformer import IntegerTransformer
from fewer.data.photos import real_photos
from fewer.kernels import native
from fewer.kernels.integers import Scaling, integer_norm, integer_softmax, rescaled
from fewer.models.spec import load_model

RESULTS = Path(__file__).parent / "results" / "integer_kernels.csv"
COLUMNS = ("what", "shape", "runtime", "median_ms", "lower_quartile_ms", "rounds", "instruction_set", "load")
HEADS = 6
Runs = dict[str, Callable[[], object]]


def accumulators(rows: int, width: int, size: float) -> Tensor:
    return (torch.randn(rows, width, generator=torch.Generator().manual_seed(rows)) * size).to(torch.int32)


def openvino(x: Tensor, build: Callable[[Any, Any], Any]) -> Callable[[], object] | None:
    """A graph of OpenVINO on int32 accumulators, on one thread; None where it is not installed."""
    try:
        import openvino as ov
        import openvino.opset13 as ops
    except ImportError:
        return None
    entered = ops.parameter(list(x.shape), ov.Type.i32)
    model = ov.Model([build(ops, ops.convert(entered, "f32"))], [entered])
    core = ov.Core()
    made = core.compile_model(model, "CPU", {"INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY"})
    request = made.create_infer_request()
    request.set_input_tensor(ov.Tensor(x.numpy(), shared_memory=True))
    return request.infer


def in_bytes(ops: Any, y: Any, factor: float, kind: str) -> Any:
    low, high = (-127.0, 127.0) if kind == "i8" else (0.0, 255.0)
    return ops.convert(ops.clamp(ops.round(ops.multiply(y, np.float32(factor)), "half_to_even"), low, high), kind)


def softmax_runs(net: IntegerTransformer, tokens: int) -> Runs:
    block, rows = net.blocks[5], HEADS * tokens
    x = accumulators(rows, tokens, 3e4)
    multiply = block.logits.multiply.reshape(-1).astype(np.int32)
    scaling = Scaling(
        torch.from_numpy(multiply), torch.full((HEADS,), 1 << block.logits.shift >> 1), block.logits.shift
    )
    exponential = exponential_of("table")
    factor = float(multiply[0]) / 2.0**block.logits.shift / 1024
    floats = x.float() * factor
    assert exponential is not None

    def in_torch() -> Tensor:
        return F.softmax(x.float().mul_(factor), -1).mul_(65535).round_().to(torch.int32)

    runs: Runs = {
        "ours": lambda: integer_softmax(x, scaling, exponential, tokens),
        "torch": in_torch,
        "torch, floats only": lambda: F.softmax(floats, -1),
    }
    found = openvino(x, lambda ops, y: in_bytes(ops, ops.softmax(ops.multiply(y, np.float32(factor)), 1), 255.0, "u8"))
    return runs if found is None else {**runs, "openvino": found}


def gelu_runs(net: IntegerTransformer, tokens: int) -> Runs:
    block = net.blocks[5]
    width = block.fc1.shape[1]
    x = accumulators(tokens, width, 2e4)
    affine = block.before_activation
    scaling = Scaling(
        torch.from_numpy(affine.multiply.astype(np.int32)), torch.from_numpy(affine.add.copy()), affine.shift
    )
    factors = affine.multiply.astype(np.float32) / np.float32(2.0**affine.shift) / 1024
    offsets = (affine.add / 2.0**affine.shift / 1024).astype(np.float32)
    f, o, lookup = torch.from_numpy(factors), torch.from_numpy(offsets), activation_table(block)
    floats = x.float() * f + o

    def in_torch() -> Tensor:
        return F.gelu(torch.addcmul(o, x.float(), f)).mul_(20).round_().clamp_(-127, 127).to(torch.int8)

    runs: Runs = {
        "ours": lambda: rescaled(x, scaling, lookup=lookup),
        "torch": in_torch,
        "torch, floats only": lambda: F.gelu(floats),
    }
    found = openvino(
        x, lambda ops, y: in_bytes(ops, ops.gelu(ops.add(ops.multiply(y, factors), offsets), "erf"), 20.0, "i8")
    )
    return runs if found is None else {**runs, "openvino": found}


def norm_runs(net: IntegerTransformer, tokens: int) -> Runs:
    affine = net.blocks[5].norm1
    width = affine.multiply.size
    x = accumulators(tokens, width, 2e5)
    scaling = Scaling(
        torch.from_numpy(affine.multiply.astype(np.int32)), torch.from_numpy(affine.add.copy()), affine.shift
    )
    weight = affine.multiply.astype(np.float32) / np.float32(2.0**affine.shift) * 1024
    bias = (affine.add / 2.0**affine.shift).astype(np.float32)
    w, b = torch.from_numpy(weight), torch.from_numpy(bias)
    floats = x.float()

    def in_torch() -> Tensor:
        return F.layer_norm(x.float(), (width,), w, b, 1e-6).round_().clamp_(-127, 127).to(torch.int8)

    def build(ops: Any, y: Any) -> Any:
        normal = ops.mvn(y, np.array([1]), True, 1e-6, "inside_sqrt")
        return in_bytes(ops, ops.add(ops.multiply(normal, weight), bias), 1.0, "i8")

    runs: Runs = {
        "ours": lambda: integer_norm(x, scaling),
        "torch": in_torch,
        "torch, floats only": lambda: F.layer_norm(floats, (width,), w, b, 1e-6),
    }
    found = openvino(x, build)
    return runs if found is None else {**runs, "openvino": found}


def network_runs(
    model: nn.Module, net: IntegerTransformer, pixels: np.ndarray, known: torch.Tensor, folder: Path
) -> Runs:
    images = known[:1]
    runs: Runs = {"ours": lambda: net.integers(pixels), "torch, fp32": lambda: model(images)}
    try:
        for kind in ("fp32", "int8"):
            made = openvino_network(model, known, kind, 1)
            runs[f"openvino, {kind}"] = lambda made=made: made.run(images.numpy())
    except ImportError:
        print("OpenVINO or NNCF is not installed: left out")
    try:
        import onnxruntime
    except ImportError:
        return runs
    path = export_onnx(net, folder / "integers.onnx", side=pixels.shape[-1])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options)
    fed = {"pixels": pixels.astype(np.uint8)}
    assert np.array_equal(session.run(None, fed)[0], net.integers(pixels))
    return {**runs, "onnxruntime, the same integers": lambda: session.run(None, fed)}


def photos(side: int, count: int = 8) -> np.ndarray:
    """Real photos, 0 to 255."""
    files = [photo.path for photo in real_photos()][:count]
    images = [np.asarray(Image.open(f).convert("RGB").resize((side, side))).transpose(2, 0, 1) for f in files]
    return np.stack(images)


def run(args: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    loaded = load_model(MODEL)
    isa = native.library().isa
    kept = [r for r in csv.reader(RESULTS.open(newline=""))][1:] if RESULTS.exists() and args.only else []
    sides = {f"{side} px" for side in args.sides}
    kept = [
        r
        for r in kept
        if r[0].startswith("DINOv2") != (args.only == "networks")
        or (r[1][-2:] == "px" and r[1] not in sides)
        or r[COLUMNS.index("instruction_set")] != isa
    ]
    with RESULTS.open("w", newline="") as handle, tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        table = csv.writer(handle)
        table.writerows([COLUMNS, *kept])

        def measure(what: str, shape: str, runs: Runs, rounds: int) -> None:
            for name, times in interleaved(runs, rounds, 1).items():
                row = [what, shape, name, f"{np.median(times):.4f}", f"{np.quantile(times, 0.25):.4f}", rounds, isa]
                table.writerow([*row, f"{os.getloadavg()[0]:.1f}"])
                print(*row, flush=True)
            handle.flush()

        for side in args.sides:
            model = load_model(MODEL).model
            model = model if side == 224 else smaller(model)
            pixels = photos(side)
            mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (loaded.mean, loaded.std))
            known = (torch.from_numpy(pixels).float() / 255 - mean) / std
            net = compile_transformer(model, known, mean=loaded.mean, std=loaded.std)
            tokens = (side // 14) ** 2 + 1
            if args.only != "networks":
                measure("softmax", f"{HEADS * tokens} x {tokens}", softmax_runs(net, tokens), args.rounds)
                measure("GELU", f"{tokens} x 1536", gelu_runs(net, tokens), args.rounds)
                measure("LayerNorm", f"{tokens} x 384", norm_runs(net, tokens), args.rounds)
            if args.only != "parts":
                runs = network_runs(model, net, pixels[:1], known, Path(folder))
                measure("DINOv2 ViT-S", f"{side} px", runs, args.whole)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--whole", type=int, default=7, help="rounds of whole networks")
    parser.add_argument("--only", choices=("parts", "networks"))
    parser.add_argument("--sides", type=int, nargs="+", default=[112, 224])
    run(parser.parse_args(arguments))


if __name__ == "__main__":
    main()
