"""Which runtimes there are, which of them are installed here, and how a user names one."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

from fewer.core.errors import FewerError, near_match

__all__ = ["EXPORTED", "RUNTIMES", "Backend", "check_runtime", "missing"]


@dataclass(frozen=True)
class Backend:
    """A runtime.

    Attributes
    ----------
    name
        As typed.
    label
        As printed.
    needs
        Modules that must be installed.
    """

    name: str
    label: str
    needs: tuple[str, ...] = ()


RUNTIMES: dict[str, Backend] = {
    one.name: one
    for one in (
        Backend("native", "fewer's kernels"),
        Backend("onnxruntime", "onnxruntime", ("onnx", "onnxscript", "onnxruntime")),
        Backend("openvino", "OpenVINO", ("onnx", "onnxscript", "openvino")),
        Backend("torch", "torch"),
    )
}
"""Every runtime by its name."""

EXPORTED = ("onnxruntime", "openvino")
"""Those that run a file."""


def check_runtime(name: str) -> str:
    """A runtime's name, or ``auto``.

    Raises
    ------
    FewerError
        On another name; the nearest one is named.

    Examples
    --------
    >>> check_runtime("openvino")
    'openvino'
    """
    if name != "auto" and name not in RUNTIMES:
        raise FewerError(f"unknown runtime {name!r}{near_match(name, ('auto', *RUNTIMES))}")
    return name


def missing(name: str) -> str | None:
    """What a runtime lacks here, as half a sentence; None where it can be used.

    Examples
    --------
    >>> missing("torch") is None
    True
    """
    lacking = [module for module in RUNTIMES[name].needs if importlib.util.find_spec(module) is None]
    if not lacking:
        return None
    return f"{' and '.join(lacking)} {'is' if len(lacking) == 1 else 'are'} not installed: pip install 'fewer[deploy]'"
