"""Reading old data sets that are pickles, without running anything that stands in them."""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np

from fewer.core.errors import FewerError
from fewer.core.reading import refusing

__all__ = ["unpickle_arrays"]


class _Array:
    """Stands for ``numpy.ndarray``, which a pickle names but may not call: a call would take memory of any size."""

    def __new__(cls, *_: Any) -> Any:
        raise FewerError("the file asks for an array without its values; it is not read")


def _reconstruct(_kind: Any, _shape: Any, _dtype: Any) -> np.ndarray:
    """An empty array, whose state follows in the pickle."""
    return np.zeros(0, np.uint8)


def _encode(text: str, codec: str = "latin1") -> bytes:
    """Bytes, as Python 3 writes them for readers of the old protocols."""
    if codec != "latin1":
        raise FewerError(f"the file asks for the encoding {codec!r}; it is not read")
    return text.encode("latin1")


def _nothing() -> bytes:
    """The values of an empty array, in the old protocols."""
    return b""


class _ArraysOnly(pickle.Unpickler):
    """Reads a pickle of numpy arrays and refuses every other class, so that no code in the file can run."""

    _MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")

    def find_class(self, module: str, name: str) -> Any:
        if module in self._MODULES and name == "_reconstruct":
            return _reconstruct
        if name == "_frombuffer" and module in ("numpy.core.numeric", "numpy._core.numeric"):  # protocol 5
            return super().find_class("numpy._core.numeric" if np.__version__ >= "2" else module, name)
        if (module, name) == ("numpy", "dtype"):
            return np.dtype
        own = {("numpy", "ndarray"): _Array, ("_codecs", "encode"): _encode, ("__builtin__", "bytes"): _nothing}
        if (module, name) in own:
            return own[module, name]
        raise FewerError(f"the file asks for {module}.{name}, which is no numpy array; it is not read")


def unpickle_arrays(data: bytes) -> Any:
    """Read plain containers, numbers, text and numpy arrays from a pickle, and nothing else.

    Raises
    ------
    FewerError
        When the pickle names any other class or function, or is damaged.

    Examples
    --------
    >>> unpickle_arrays(pickle.dumps({"labels": [0, 1]}))
    {'labels': [0, 1]}
    >>> unpickle_arrays(pickle.dumps(print))
    Traceback (most recent call last):
    fewer.core.errors.FewerError: the file asks for builtins.print, which is no numpy array; it is not read
    """
    with refusing("the pickle", "download the file again"):
        return _ArraysOnly(io.BytesIO(data), encoding="latin1").load()
