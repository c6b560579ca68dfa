"""Block-sparse linear layer for GPUs: our own Triton kernel over square blocks of 32 or 64.

A GPU wants coarser blocks than a CPU (one tensor-core tile), hence the two sizes. The weight is kept as the
list of its non-zero blocks, row strip by row strip; the kernel walks the blocks of one strip and keeps the
sum in fp32, then adds the bias and applies GELU before the only store. Inputs may be fp16, bf16 or fp32.

Triton is imported on first use (extra ``[gpu]``). With ``TRITON_INTERPRET=1`` in the environment the same
kernel runs on CPU tensors in Triton's interpreter: right, but thousands of times too slow to be of use.

No speed is claimed here: ``benchmarks/gpu.py`` measures it where a GPU is present.
"""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fewer.core.errors import FewerError

__all__ = ["BLOCK_SIZES", "TritonBlocks", "TritonLinear", "pack_blocks", "triton_linear"]

BLOCK_SIZES = (32, 64)
_ACTIVATIONS = (None, "gelu")
_DTYPES = (torch.float16, torch.bfloat16, torch.float32)


@dataclass(frozen=True)
class TritonBlocks:
    """The non-zero square blocks of a weight matrix, in the order in which the kernel visits them.

    Attributes
    ----------
    values : Tensor
        Shape ``(blocks, size, size)``, each block as it stands in the weight (rows are outputs); blocks that
        stick out over the matrix are padded with zeros.
    columns : Tensor
        int32, shape ``(blocks,)``: block column of each block.
    starts : Tensor
        int32, shape ``(row strips + 1,)``: the blocks of strip ``r`` are ``starts[r]:starts[r + 1]``.
    shape : tuple of int
        ``(out_features, in_features)`` of the weight.
    """

    values: Tensor
    columns: Tensor
    starts: Tensor
    shape: tuple[int, int]

    @property
    def size(self) -> int:
        """Edge of a block."""
        return int(self.values.shape[-1])

    @property
    def density(self) -> float:
        """Share of the blocks that is kept, 0 to 1."""
        strips = len(self.starts) - 1
        return len(self.columns) / (strips * -(-self.shape[1] // self.size))

    def to_dense(self) -> Tensor:
        """Return the weight, shape ``(out_features, in_features)``, zeros where no block is stored."""
        size, strips = self.size, len(self.starts) - 1
        tiles = -(-self.shape[1] // size)
        grid = self.values.new_zeros(strips, tiles, size, size)
        rows = torch.repeat_interleave(torch.arange(strips, device=self.starts.device), self.starts.diff().long())
        grid[rows, self.columns.long()] = self.values
        dense = grid.permute(0, 2, 1, 3).reshape(strips * size, tiles * size)
        return dense[: self.shape[0], : self.shape[1]].contiguous()


def pack_blocks(weight: Tensor, mask: Tensor, size: int = 64) -> TritonBlocks:
    """Pack a masked weight into square blocks; a block is stored when the mask keeps any weight of it.

    Parameters
    ----------
    weight : Tensor
        Shape ``(out_features, in_features)``, fp16, bf16 or fp32.
    mask : Tensor
        Same shape; nonzero (or True) where the weight stays.
    size : int
        Edge of a block, 32 or 64.

    Raises
    ------
    FewerError
        If the block size, the dtype or the mask's shape is not supported.

    Examples
    --------
    >>> import torch
    >>> weight, mask = torch.ones(64, 96), torch.zeros(64, 96)
    >>> mask[:32, 64:] = 1
    >>> blocks = pack_blocks(weight, mask, size=32)
    >>> len(blocks.columns), blocks.starts.tolist()
    (1, [0, 1, 1])
    """
    if size not in BLOCK_SIZES:
        raise FewerError(f"The GPU kernel has square blocks of 32 or 64, not {size}; choose one of these.")
    if weight.dim() != 2 or weight.dtype not in _DTYPES:
        raise FewerError(
            f"The GPU kernel packs 2-d weights in fp16, bf16 or fp32, not {weight.dim()}-d {weight.dtype}; "
            "convert the weight first."
        )
    if mask.shape != weight.shape:
        raise FewerError(f"The mask has shape {tuple(mask.shape)}, the weight {tuple(weight.shape)}; they must agree.")
    weight = weight.detach()
    rows, cols = weight.shape
    strips, tiles = -(-rows // size), -(-cols // size)
    padding = (0, tiles * size - cols, 0, strips * size - rows)
    keep = nn.functional.pad(mask.to(weight.device) != 0, padding)
    grid = nn.functional.pad(weight, padding).masked_fill(~keep, 0)
    grid = grid.view(strips, size, tiles, size).permute(0, 2, 1, 3)
    alive = keep.view(strips, size, tiles, size).any(dim=3).any(dim=1)
    starts = torch.zeros(strips + 1, dtype=torch.int32, device=weight.device)
    starts[1:] = alive.sum(dim=1).cumsum(0)
    columns = alive.nonzero()[:, 1].to(torch.int32)
    return TritonBlocks(grid[alive].contiguous(), columns, starts, (rows, cols))


def triton_linear(x: Tensor, blocks: TritonBlocks, bias: Tensor | None = None, activation: str | None = None) -> Tensor:
    """Compute ``activation(x @ W.T + bias)`` with only the stored blocks of W, summed in fp32.

    Parameters
    ----------
    x : Tensor
        Shape ``(..., in_features)``, any number of leading dimensions and of tokens; same dtype as the blocks.
    blocks : TritonBlocks
        The packed weight, from `pack_blocks`.
    bias : Tensor, optional
        Shape ``(out_features,)``.
    activation : {None, "gelu"}
        Applied in the epilogue; GELU in its exact (erf) form.

    Returns
    -------
    Tensor
        Shape ``(..., out_features)``, dtype of ``x``. Differentiating through it is not supported.

    Raises
    ------
    FewerError
        Without Triton, for CPU tensors outside Triton's interpreter, and for shapes or dtypes that do not fit.

    Examples
    --------
    >>> blocks = pack_blocks(weight.half().cuda(), mask.cuda(), size=64)   # doctest: +SKIP
    >>> y = triton_linear(x.half().cuda(), blocks, activation="gelu")      # doctest: +SKIP
    """
    if activation not in _ACTIVATIONS:
        raise FewerError(f"Unknown activation {activation!r} for the GPU kernel; it has None and 'gelu'.")
    if x.shape[-1] != blocks.shape[1]:
        raise FewerError(f"The input has {x.shape[-1]} features, the weight {blocks.shape[1]}; they must agree.")
    if x.dtype != blocks.values.dtype:
        raise FewerError(f"The input is {x.dtype}, the packed weight {blocks.values.dtype}; convert one of them.")
    if bias is not None and bias.shape != (blocks.shape[0],):
        raise FewerError(f"The bias has shape {tuple(bias.shape)}, the layer {blocks.shape[0]} outputs.")
    gelu = activation == "gelu"
    return _block_sparse_linear(x, blocks.values, blocks.columns, blocks.starts, bias, blocks.shape[0], gelu)


class TritonLinear(nn.Module):
    """A linear layer whose weight is kept and multiplied as square blocks on the GPU.

    Build it with `from_dense`. Buffers are ``values``, ``columns``, ``starts`` and ``bias``, so that its state goes
    into safetensors as it is.
    """

    values: Tensor
    columns: Tensor
    starts: Tensor
    bias: Tensor | None

    def __init__(self, blocks: TritonBlocks, bias: Tensor | None = None, activation: str | None = None) -> None:
        super().__init__()
        self.out_features, self.in_features = blocks.shape
        self.activation = activation
        self.register_buffer("values", blocks.values)
        self.register_buffer("columns", blocks.columns)
        self.register_buffer("starts", blocks.starts)
        self.register_buffer("bias", bias)

    @classmethod
    def from_dense(cls, linear: nn.Linear, mask: Tensor, size: int = 64, activation: str | None = None) -> TritonLinear:
        """Make the block-sparse twin of ``linear``, which is left untouched; ``mask`` has its weight's shape."""
        bias = None if linear.bias is None else linear.bias.detach().clone()
        return cls(pack_blocks(linear.weight, mask, size), bias, activation)

    @property
    def blocks(self) -> TritonBlocks:
        """The packed weight."""
        return TritonBlocks(self.values, self.columns, self.starts, (self.out_features, self.in_features))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(..., in_features)`` to ``(..., out_features)``."""
        return triton_linear(x, self.blocks, self.bias, self.activation)

    def extra_repr(self) -> str:
        """Sizes, for printing the model."""
        return (
            f"{self.in_features}, {self.out_features}, block={self.values.shape[-1]}, density={self.blocks.density:.2f}"
        )


@torch.library.custom_op("fewer::triton_block_sparse_linear", mutates_args=())
def _block_sparse_linear(
    x: Tensor,
    values: Tensor,
    columns: Tensor,
    starts: Tensor,
    bias: Tensor | None,
    out_features: int,
    gelu: bool,
) -> Tensor:
    triton, kernel, tuned = _kernel()
    interpreted = not tuned
    if not (x.is_cuda or interpreted):
        raise FewerError(
            f"The GPU kernel got a tensor on {x.device.type!r}; move model and input to 'cuda', or use the CPU kernels."
        )
    rows = x.reshape(-1, x.shape[-1])
    if rows.stride(-1) != 1:
        rows = rows.contiguous()
    tokens, features = rows.shape
    y = torch.empty(tokens, out_features, dtype=x.dtype, device=x.device)
    if tokens == 0 or out_features == 0:
        return y.view(*x.shape[:-1], out_features)
    size = values.shape[-1]
    strips = len(starts) - 1
    options: dict[str, Any] = {
        "BLOCK": size,
        "HAS_BIAS": bias is not None,
        "GELU": gelu,
        # the interpreter's dot takes the bits of a bf16 for an integer; products of widened bf16 are exact
        "WIDEN": interpreted and x.dtype == torch.bfloat16,
        # like torch.matmul: TF32 only where the user has allowed it
        "PRECISION": "tf32" if torch.backends.cuda.matmul.allow_tf32 else "ieee",
    }
    if interpreted:
        options["BLOCK_M"] = 64

    def grid(meta: dict[str, Any]) -> tuple[int]:
        return (strips * triton.cdiv(tokens, meta["BLOCK_M"]),)

    arguments = (rows, values, columns, starts, y if bias is None else bias, y)
    sizes = (tokens, features, out_features, strips, rows.stride(0), y.stride(0))
    # tuning is repeated for another order of magnitude of tokens or of density, not for each new number
    keys = (tokens.bit_length(), (8 * len(columns) // max(1, strips * -(-features // size))))
    kernel[grid](*arguments, *sizes, *keys, **options)
    return y.view(*x.shape[:-1], out_features)


@_block_sparse_linear.register_fake
def _(
    x: Tensor,
    values: Tensor,
    columns: Tensor,
    starts: Tensor,
    bias: Tensor | None,
    out_features: int,
    gelu: bool,
) -> Tensor:
    return x.new_empty(*x.shape[:-1], out_features)


def _configs(triton: Any) -> list[Any]:
    """Tile heights and depths worth trying on A100 and H100.

    One strip gives one column of tiles, so batch 1 needs low tiles to fill the machine, and a large batch wants high
    ones to reuse each weight block. A setting that does not fit the shared memory is dropped by the tuner itself.
    """
    settings = [(16, 2, 5), (16, 4, 4), (32, 4, 4), (64, 4, 3), (64, 4, 5), (128, 4, 3), (128, 8, 4), (256, 8, 3)]
    return [triton.Config({"BLOCK_M": m}, num_warps=warps, num_stages=stages) for m, warps, stages in settings]


@functools.lru_cache(maxsize=1)
def _kernel() -> tuple[Any, Any, bool]:
    """Import Triton and build the kernel: (triton, kernel, whether it is compiled and tuned)."""
    try:
        import triton
        import triton.language as tl
    except ImportError:
        raise FewerError("The GPU kernel needs Triton, which is not installed: pip install 'fewer[gpu]'.") from None

    # one kernel, so one function: Triton compiles this body as it stands. Its arguments are the pointers, sizes and
    # strides that a kernel has in any language, since it cannot take an object.
    @triton.jit
    def block_sparse_linear(
        x,
        values,
        columns,
        starts,
        bias,
        y,
        tokens,
        features,
        outputs,
        strips,
        stride_x,
        stride_y,
        tokens_key,
        density_key,
        BLOCK: tl.constexpr,
        HAS_BIAS: tl.constexpr,
        GELU: tl.constexpr,
        PRECISION: tl.constexpr,
        WIDEN: tl.constexpr,
        BLOCK_M: tl.constexpr,
    ):
        # neighbouring programs share their tokens: x is read from memory once, the weights stay in the L2 cache
        strip = tl.program_id(0) % strips
        row = (tl.program_id(0) // strips) * BLOCK_M + tl.arange(0, BLOCK_M)
        inner = tl.arange(0, BLOCK)
        alive = row < tokens
        x_rows = x + row.to(tl.int64)[:, None] * stride_x
        total = tl.zeros((BLOCK_M, BLOCK), dtype=tl.float32)
        first = tl.load(starts + strip)
        last = tl.load(starts + strip + 1)
        # read transposed, as (in, out)
        tile = values + first.to(tl.int64) * BLOCK * BLOCK + inner[None, :] * BLOCK + inner[:, None]
        for block in range(first, last):
            feature = tl.load(columns + block) * BLOCK + inner
            xs = tl.load(x_rows + feature[None, :], mask=alive[:, None] & (feature < features)[None, :], other=0.0)
            ws = tl.load(tile)
            tile += BLOCK * BLOCK
            if WIDEN:
                xs = xs.to(tl.float32)
                ws = ws.to(tl.float32)
            total = tl.dot(xs, ws, total, input_precision=PRECISION)
        output = strip * BLOCK + inner
        if HAS_BIAS:
            total += tl.load(bias + output, mask=output < outputs, other=0.0).to(tl.float32)[None, :]
        if GELU:
            total = total * 0.5 * (1.0 + tl.erf(total * 0.7071067811865476))
        target = y + row.to(tl.int64)[:, None] * stride_y + output[None, :]
        tl.store(target, total.to(y.dtype.element_ty), mask=alive[:, None] & (output < outputs)[None, :])

    if os.environ.get("TRITON_INTERPRET") == "1":
        return triton, block_sparse_linear, False
    keys = ["features", "outputs", "tokens_key", "density_key", "BLOCK", "HAS_BIAS", "GELU"]
    return triton, triton.autotune(configs=_configs(triton), key=keys)(block_sparse_linear), True
