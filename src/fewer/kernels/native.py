"""Loading of the native library, choice of the instruction set, and the ctypes mirror of its C structs."""

from __future__ import annotations

import ctypes
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import POINTER, c_char_p, c_double, c_float, c_int32, c_int64, c_void_p
from functools import cache
from pathlib import Path

import torch  # before the library: torch loads the OpenMP runtime that both share

from fewer.core.errors import FewerError

_ABI_VERSION = 6
_LIBRARY = "libfewer_native.so"
MODES = {"fp32": 0, "bf16": 1, "int8": 2}
ACTIVATIONS = {None: 0, "none": 0, "gelu": 1, "relu": 2, "silu": 3, "relu6": 4, "gelu_tanh": 5}
DTYPES = {torch.float32: 0, torch.bfloat16: 1}


class WeightStruct(ctypes.Structure):
    """``FewerWeight`` of native/abi.h."""

    _fields_ = [
        *((n, c_int32) for n in ("mode", "out", "inputs", "strips", "ku")),
        *((n, c_void_p) for n in ("rowptr", "kidx", "vals", "bias", "scale", "corr")),
        ("narrow", c_int32),
    ]


class LinearStruct(ctypes.Structure):
    """``FewerLinear`` of native/abi.h."""

    _fields_ = [
        ("x", c_void_p),
        ("ldx", c_int64),
        ("xtype", c_int32),
        ("act", c_int32),
        ("ln_weight", c_void_p),
        ("ln_bias", c_void_p),
        ("ln_eps", c_float),
        ("ytype", c_int32),
        ("y", c_void_p),
        ("ldy", c_int64),
        ("residual", c_void_p),
        ("ldr", c_int64),
        ("tokens", c_int64),
        ("threads", c_int32),
    ]


class AttentionStruct(ctypes.Structure):
    """``FewerAttention`` of native/abi.h."""

    _fields_ = [
        *((n, c_void_p) for n in "qkv"),
        *((f"{t}_{a}", c_int64) for t in "qkv" for a in ("batch", "token", "head")),
        ("out", c_void_p),
        *((f"o_{a}", c_int64) for a in ("batch", "token", "head")),
        *((n, c_int32) for n in ("xtype", "ytype", "mode", "batch", "heads", "queries", "keys", "dim")),
        ("scale", c_float),
        ("threads", c_int32),
        ("key_bias", c_void_p),
        ("bias_batch", c_int64),
    ]


class BlockStruct(ctypes.Structure):
    """``FewerBlock`` of native/abi.h."""

    _fields_ = [
        *((n, POINTER(WeightStruct)) for n in ("qkv", "proj", "fc1", "fc2")),
        *((n, c_void_p) for n in ("norm1_weight", "norm1_bias", "norm2_weight", "norm2_bias")),
        ("eps1", c_float),
        ("eps2", c_float),
        *((n, c_int32) for n in ("act", "heads", "batch", "tokens")),
        ("x", c_void_p),
        ("y", c_void_p),
        ("mode", c_int32),
        ("scale", c_float),
        ("threads", c_int32),
        ("key_bias", c_void_p),
    ]


class ConvStruct(ctypes.Structure):
    """``FewerConv`` of native/abi.h."""

    _fields_ = [
        ("x", c_void_p),
        *((n, c_int64) for n in ("x_batch", "x_channel", "x_row", "x_col")),
        ("y", c_void_p),
        ("residual", c_void_p),
        *((n, c_int32) for n in ("batch", "channels", "channels_padded", "height", "width")),
        *((f"{n}_{a}", c_int32) for n in ("kernel", "stride", "pad", "dilation") for a in "hw"),
        *((n, c_int32) for n in ("out_h", "out_w", "act", "threads")),
    ]


class DepthwiseStruct(ctypes.Structure):
    """``FewerDepthwise`` of native/abi.h."""

    _fields_ = [
        *((n, c_void_p) for n in ("x", "weight", "bias", "y")),
        *((n, c_int32) for n in ("batch", "channels", "height", "width")),
        *((f"{n}_{a}", c_int32) for n in ("kernel", "stride", "pad") for a in "hw"),
        *((n, c_int32) for n in ("out_h", "out_w", "act", "threads")),
    ]


class StageStruct(ctypes.Structure):
    """``FewerStage`` of native/abi.h."""

    _fields_ = [
        ("expand", POINTER(WeightStruct)),
        ("filter", c_void_p),
        ("filter_bias", c_void_p),
        ("project", POINTER(WeightStruct)),
        *((f"{part}_{n}", c_int32) for part in ("expand", "filter") for n in ("kernel", "stride", "pad")),
        *((n, c_int32) for n in ("expand_act", "filter_act", "project_act", "residual")),
    ]


class ChainStruct(ctypes.Structure):
    """``FewerChain`` of native/abi.h."""

    _fields_ = [
        ("stages", POINTER(StageStruct)),
        ("count", c_int32),
        ("x", c_void_p),
        *((n, c_int64) for n in ("x_batch", "x_channel", "x_row", "x_col")),
        ("y", c_void_p),
        *((n, c_int32) for n in ("batch", "channels", "height", "width", "threads")),
    ]


class NormStruct(ctypes.Structure):
    """``FewerNorm`` of native/abi.h."""

    _fields_ = [
        *((n, c_void_p) for n in ("x", "residual", "sum", "weight", "bias")),
        ("eps", c_float),
        ("ytype", c_int32),
        ("y", c_void_p),
        ("scale", c_void_p),
        ("tokens", c_int64),
        ("width", c_int32),
        ("threads", c_int32),
    ]


class MergeStruct(ctypes.Structure):
    """``FewerMerge`` of native/abi.h."""

    _fields_ = [
        *((n, c_void_p) for n in ("x", "sizes", "origin", "y", "sizes_out", "origin_out")),
        *((n, c_int32) for n in ("batch", "tokens", "width", "image", "count", "protect", "threads")),
    ]


class IntegerAffineStruct(ctypes.Structure):
    """``FewerIntegerAffine`` of native/abi.h."""

    _fields_ = [
        *((n, c_void_p) for n in ("x", "multiply", "add")),
        ("shift", c_int32),
        ("table", c_void_p),
        *((n, c_int32) for n in ("low", "size")),
        *((n, c_void_p) for n in ("residual", "y")),
        ("rows", c_int64),
        *((n, c_int32) for n in ("width", "threads")),
    ]


class IntegerSoftmaxStruct(ctypes.Structure):
    """``FewerIntegerSoftmax`` of native/abi.h."""

    _fields_ = [
        *((n, c_void_p) for n in ("x", "multiply", "add")),
        *((n, c_int32) for n in ("shift", "groups")),
        ("group_rows", c_int64),
        ("table", c_void_p),
        *((n, c_int32) for n in ("reach", "halving")),
        *((n, c_void_p) for n in ("slopes", "intercepts", "y")),
        ("rows", c_int64),
        *((n, c_int32) for n in ("width", "threads")),
    ]


class IntegerNormStruct(ctypes.Structure):
    """``FewerIntegerNorm`` of native/abi.h."""

    _fields_ = [
        *((n, c_void_p) for n in ("x", "powers")),
        ("centre", c_int32),
        *((n, c_void_p) for n in ("multiply", "add")),
        ("shift", c_int32),
        *((n, c_void_p) for n in ("y", "wide")),
        ("rows", c_int64),
        *((n, c_int32) for n in ("width", "threads")),
    ]


_INTEGER: dict[str, type[ctypes.Structure]] = {
    "affine": IntegerAffineStruct,
    "softmax": IntegerSoftmaxStruct,
    "norm": IntegerNormStruct,
}
"""Structs of the kernels for integer networks. They were added without a change of what was there, so that a library
that was built before is still of use; it lacks them."""


class Library:
    """The loaded native library."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._dll = dll = ctypes.CDLL(str(path))
        dll.fewer_abi_version.restype = c_int32
        if dll.fewer_abi_version() != _ABI_VERSION:
            raise OSError(f"{path} has ABI version {dll.fewer_abi_version()}, this package needs {_ABI_VERSION}")
        for name, arguments in {
            "fewer_linear": [POINTER(WeightStruct), POINTER(LinearStruct)],
            "fewer_attention": [POINTER(AttentionStruct)],
            "fewer_block": [POINTER(BlockStruct)],
            "fewer_conv": [POINTER(WeightStruct), POINTER(ConvStruct)],
            "fewer_depthwise": [POINTER(DepthwiseStruct)],
            "fewer_norm": [POINTER(NormStruct)],
            "fewer_chain": [POINTER(ChainStruct)],
            "fewer_merge": [POINTER(MergeStruct)],
        }.items():
            function = getattr(dll, name)
            function.argtypes, function.restype = arguments, c_int32
        self.integers = {}
        for name, structure in _INTEGER.items():
            if hasattr(dll, f"fewer_integer_{name}"):
                self.integers[name] = function = getattr(dll, f"fewer_integer_{name}")
                function.argtypes, function.restype = [POINTER(structure)], c_int32
        dll.fewer_select.argtypes, dll.fewer_select.restype = [c_char_p], c_int32
        dll.fewer_variant.argtypes, dll.fewer_variant.restype = [c_int32, POINTER(c_int32)], c_char_p
        dll.fewer_active.restype = c_char_p
        dll.fewer_peak.argtypes, dll.fewer_peak.restype = [c_int32, c_int64], c_double
        self.linear, self.attention, self.block = dll.fewer_linear, dll.fewer_attention, dll.fewer_block
        self.conv, self.depthwise, self.norm = dll.fewer_conv, dll.fewer_depthwise, dll.fewer_norm
        self.chain, self.merge = dll.fewer_chain, dll.fewer_merge
        self.peak = dll.fewer_peak
        self._wide = c_int32.in_dll(dll, "fewer_wide_tiles")
        self.select(os.environ.get("FEWER_ISA") or None)

    def variants(self) -> dict[str, bool]:
        """Instruction sets in the library, best first, and whether this processor has them."""
        found: dict[str, bool] = {}
        supported = c_int32()
        while name := self._dll.fewer_variant(len(found), ctypes.byref(supported)):
            found[name.decode()] = bool(supported.value)
        return found

    @property
    def isa(self) -> str:
        """The instruction set in use."""
        return self._dll.fewer_active().decode()

    @property
    def wide_tiles(self) -> bool:
        """Whether AVX-512 products take twelve rows and two strips at once; by default where L1 has twelve ways."""
        return bool(self._wide.value)

    @wide_tiles.setter
    def wide_tiles(self, on: bool) -> None:
        self._wide.value = int(on)

    def select(self, name: str | None) -> None:
        """Use one instruction set (None: the best this processor has) for every later call."""
        status = self._dll.fewer_select(name.encode() if name else None)
        if status == 1:
            raise FewerError(f"unknown instruction set FEWER_ISA={name!r}; choose one of {', '.join(self.variants())}")
        if status == 2:
            usable = ", ".join(n for n, ok in self.variants().items() if ok)
            raise FewerError(f"this processor lacks the instruction set FEWER_ISA={name!r}; it has {usable}")


def _candidates() -> list[Path]:
    """Where the library may be: an editable install puts it into a second folder of the package's path."""
    override = os.environ.get("FEWER_NATIVE_LIB")
    if override:
        path = Path(override)
        if not path.is_file():
            raise FewerError(f"FEWER_NATIVE_LIB={override!r} is not a file; unset it or point it at {_LIBRARY}")
        return [path]
    import sysconfig

    import fewer.kernels

    folders = [Path(entry) for entry in fewer.kernels.__path__]
    folders += [Path(sysconfig.get_path(kind)) / "fewer" / "kernels" for kind in ("platlib", "purelib")]
    return [folder / _LIBRARY for folder in folders]


@cache
def load() -> Library | None:
    """The native library, or None where it was not built; says so once.

    ``FEWER_NATIVE_LIB`` names a library file; ``FEWER_ISA`` forces one instruction set; ``FEWER_NATIVE=0`` turns the
    library off.

    Raises
    ------
    FewerError
        When a variable of the environment names something that does not exist.
    """
    if os.environ.get("FEWER_NATIVE") == "0":
        return None
    for path in _candidates():
        if path.is_file():
            try:
                return Library(path)
            except OSError as error:
                warnings.warn(f"fewer: the native kernels at {path} do not load ({error})", stacklevel=2)
    warnings.warn(
        "fewer: the native kernels are not built, so the slow pure-torch path is used; "
        "install a C++ compiler and reinstall fewer",
        stacklevel=2,
    )
    return None


def available() -> bool:
    """Whether the native library is loaded."""
    return load() is not None


def library() -> Library:
    """The native library.

    Raises
    ------
    FewerError
        Where it was not built.
    """
    found = load()
    if found is None:
        raise FewerError("the native kernels are not built; install a C++ compiler and reinstall fewer")
    return found


@contextmanager
def isa(name: str | None) -> Iterator[Library]:
    """Use one instruction set inside of a ``with`` block.

    Examples
    --------
    >>> with isa("portable") as lib:  # doctest: +SKIP
    ...     print(lib.isa)
    portable
    """
    lib = library()
    before = lib.isa
    lib.select(name)
    try:
        yield lib
    finally:
        lib.select(before)


def call(status: int, what: str) -> None:
    """Turn a status of the library into an error."""
    if status == 2:
        raise MemoryError(f"{what}: no memory for scratch space")
    if status != 0:
        raise FewerError(f"{what}: the native kernel refused its arguments")
