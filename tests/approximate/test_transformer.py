"""The integer transformer against its specification in plain Python integers, against float, and as an ONNX file."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from fewer.approximate.activation import ACTIVATIONS
from fewer.approximate.compile import compile_transformer
from fewer.approximate.norm import NORMS
from fewer.approximate.onnx import export_onnx
from fewer.approximate.softmax import SOFTMAXES
from fewer.approximate.transformer import INNER, Affine, Choice, IntegerTransformer, run
from fewer.core.errors import FewerError
from fewer.models.vit import VisionTransformer


@pytest.fixture(scope="module")
def tiny() -> tuple[VisionTransformer, torch.Tensor]:
    torch.manual_seed(0)
    net = VisionTransformer(image_size=16, patch_size=8, width=12, depth=2, heads=2, num_classes=0, layer_scale=0.5)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    pixels = torch.randint(0, 256, (3, 3, 16, 16))
    return net.eval(), pixels


def integer(tiny, choices=None) -> IntegerTransformer:
    net, pixels = tiny
    return compile_transformer(net, pixels / 255 - 0.5, mean=(0.5,) * 3, std=(1.0,) * 3, choices=choices)


def plain_product(a: list, b: list) -> list:
    return [[sum(x * y for x, y in zip(row, column, strict=True)) for column in zip(*b, strict=True)] for row in a]


def plain_affine(affine: Affine, rows: list, head: int | None = None) -> list:
    m, b = np.asarray(affine.multiply), np.asarray(affine.add)
    done = []
    for row in rows:
        new = []
        for c, x in enumerate(row):
            k = c if head is None else head
            multiply, add = (int(v.reshape(-1)[k if v.size > 1 else 0]) for v in (m, b))
            y = (x * multiply + add) >> affine.shift
            new.append(max(-127, min(127, y)) if affine.byte else y)
        done.append(new)
    return done


def plain_run(net: IntegerTransformer, image: list) -> list:
    """One image through loops over Python's unbounded integers; the three approximations are taken row by row."""
    size, grid = net.patch, len(image[0]) // net.patch

    def norm(rows: list, name: str, span: object) -> list:
        return [NORMS[name].run(np.array(r), net.residual, span)[0].tolist() for r in rows]

    patches = [
        [image[c][y * size + i][x * size + j] - 128 for c in range(3) for i in range(size) for j in range(size)]
        for y, x in itertools.product(range(grid), range(grid))
    ]
    rows = plain_affine(net.after_embed, plain_product(patches, net.embed.tolist()))
    rows = [[0] * len(rows[0]), *rows]
    rows = [[a + int(p) for a, p in zip(r, q, strict=True)] for r, q in zip(rows, net.position, strict=True)]
    for block in net.blocks:
        y = norm(rows, block.choice.norm, block.spans["norm1"])
        y = plain_affine(block.heads_in, plain_product(plain_affine(block.norm1, y), block.qkv.tolist()))
        width, wide = len(rows[0]), len(rows[0]) // net.heads
        mixed = [[0] * width for _ in rows]
        for h in range(net.heads):
            q, k, v = ([r[p * width + h * wide : p * width + (h + 1) * wide] for r in y] for p in range(3))
            logits = plain_affine(block.logits, plain_product(q, [list(c) for c in zip(*k, strict=True)]), h)
            p = [SOFTMAXES[block.choice.softmax].run(np.array(r), INNER, None)[0].tolist() for r in logits]
            for t, r in enumerate(plain_affine(block.heads_out, plain_product(p, v), h)):
                mixed[t][h * wide : (h + 1) * wide] = r
        add = plain_affine(block.after_proj, plain_product(mixed, block.proj.tolist()))
        rows = [[a + b for a, b in zip(r, s, strict=True)] for r, s in zip(rows, add, strict=True)]
        y = norm(rows, block.choice.norm, block.spans["norm2"])
        y = plain_affine(block.before_activation, plain_product(plain_affine(block.norm2, y), block.fc1.tolist()))
        method = ACTIVATIONS[block.choice.activation].run
        y = [[int(method(np.array([x]), INNER, block.spans["activation"])[0][0]) for x in r] for r in y]
        add = plain_affine(block.after_fc2, plain_product(plain_affine(block.after_activation, y), block.fc2.tolist()))
        rows = [[a + b for a, b in zip(r, s, strict=True)] for r, s in zip(rows, add, strict=True)]
    return plain_affine(net.after_norm, norm(rows, net.norm, None))


def test_the_forward_pass_is_its_specification_to_the_last_bit(tiny) -> None:
    net = integer(tiny, {1: Choice("shift", "integer-gelu", "factor-layer-norm")})
    pixels = tiny[1].numpy()
    assert run(net, pixels[:1])[0].tolist() == plain_run(net, pixels[0].tolist())


@pytest.mark.parametrize("softmax", SOFTMAXES)
@pytest.mark.parametrize("activation", [a for a in ACTIVATIONS if a.endswith("gelu")])
def test_every_approximation_gives_the_features_of_the_float_network(tiny, softmax: str, activation: str) -> None:
    net, pixels = tiny
    choices = dict.fromkeys(range(2), Choice(softmax, activation))
    ours = integer(tiny, choices).features(pixels.numpy())
    with torch.no_grad():
        wanted = net(pixels / 255 - 0.5).numpy()
    cosine = (ours * wanted).sum(-1) / np.linalg.norm(ours, axis=-1) / np.linalg.norm(wanted, axis=-1)
    assert cosine.min() > (0.97 if "shift" in softmax + activation or softmax == "log2" else 0.995)


@pytest.mark.parametrize(
    "choice",
    [
        Choice(),
        Choice("polynomial", "polynomial-gelu"),
        Choice("shift", "shift-gelu", "factor-layer-norm"),
        Choice("log2", "integer-gelu", "rms-norm"),
    ],
)
def test_the_onnx_file_holds_integers_only_and_gives_the_same_bits(tiny, choice: Choice, tmp_path) -> None:
    onnx = pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    net = integer(tiny, dict.fromkeys(range(2), choice))
    path = export_onnx(net, tmp_path / "net.onnx", side=16, batch=3)
    model = onnx.shape_inference.infer_shapes(onnx.load(str(path)))
    kinds = {v.type.tensor_type.elem_type for v in (*model.graph.value_info, *model.graph.input, *model.graph.output)}
    kinds |= {v.data_type for v in model.graph.initializer}
    floats = {onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16}
    assert not kinds & floats
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    pixels = tiny[1].numpy()
    assert np.array_equal(session.run(None, {"pixels": pixels.astype(np.uint8)})[0], run(net, pixels))


def test_another_kind_of_model_is_told(tiny) -> None:
    with pytest.raises(FewerError, match="no Vision Transformer in timm's names"):
        compile_transformer(torch.nn.Linear(2, 2), tiny[1], mean=(0,) * 3, std=(1,) * 3)
