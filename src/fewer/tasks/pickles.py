"""Reading old data sets that are pickles, without running anything that stands in them."""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np

from fewer.core.errors import FewerError

__all__ = ["unpickle_arrays"]


class _ArraysOnly(pickle.Unpickler):
    """Reads a pickle of numpy arrays and refuses every other class, so that no code in the file can run."""

    _ALLOWED = frozenset({("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")})
    _RECONSTRUCT = ("numpy.core.multiarray", "numpy._core.multiarray")

    def find_class(self, module: str, name: str) -> Any:
        if module in self._RECONSTRUCT and name == "_reconstruct":
            return super().find_class("numpy._core.multiarray" if np.__version__ >= "2" else module, name)
        if name == "_frombuffer" and module in ("numpy.core.numeric", "numpy._core.numeric"):  # protocol 5
            return super().find_class("numpy._core.numeric" if np.__version__ >= "2" else module, name)
        if (module, name) in self._ALLOWED:
            return super().find_class(module, name)
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
    try:
        return _ArraysOnly(io.BytesIO(data), encoding="latin1").load()
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError, IndexError, KeyError) as error:
        raise FewerError(f"the pickle is damaged ({type(error).__name__}: {error}); download the file again") from None
