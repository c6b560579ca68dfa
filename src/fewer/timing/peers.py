"""The peers: every runtime and precision that the bench can set beside a model, and how a user names them."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

from fewer.core.errors import FewerError

__all__ = ["DEFAULT_PEERS", "GROUPS", "PEERS", "Peer", "missing_extra", "parse_peers"]


@dataclass(frozen=True)
class Peer:
    """One runtime in one precision.

    Attributes
    ----------
    name : str
        As typed after ``--vs``.
    label : str
        As printed.
    runtime : {"torch", "compile", "onnxruntime", "openvino"}
        What runs it.
    precision : {"fp32", "bf16", "int8"}
        Of its matrix products.
    needs : tuple of str
        Modules that must be installed.
    """

    name: str
    label: str
    runtime: str
    precision: str
    needs: tuple[str, ...] = ()


_ONNX = ("onnx", "onnxscript")
_ALL = (
    Peer("torch-fp32", "torch eager fp32", "torch", "fp32"),
    Peer("torch-bf16", "torch eager bf16", "torch", "bf16"),
    Peer("compile-fp32", "torch.compile fp32", "compile", "fp32"),
    Peer("compile-bf16", "torch.compile bf16", "compile", "bf16"),
    Peer("onnxruntime-fp32", "onnxruntime fp32", "onnxruntime", "fp32", (*_ONNX, "onnxruntime")),
    Peer("onnxruntime-int8", "onnxruntime int8", "onnxruntime", "int8", (*_ONNX, "onnxruntime")),
    Peer("openvino-fp32", "OpenVINO fp32", "openvino", "fp32", (*_ONNX, "openvino")),
    Peer("openvino-bf16", "OpenVINO bf16", "openvino", "bf16", (*_ONNX, "openvino")),
    Peer("openvino-int8", "OpenVINO int8", "openvino", "int8", (*_ONNX, "openvino", "nncf")),
)

PEERS: dict[str, Peer] = {peer.name: peer for peer in _ALL}
"""Every peer by its name."""

GROUPS: dict[str, tuple[str, ...]] = {
    "all": tuple(PEERS),
    "torch": ("torch-fp32", "torch-bf16"),
    "compile": ("compile-fp32", "compile-bf16"),
    "onnxruntime": ("onnxruntime-fp32", "onnxruntime-int8"),
    "openvino": ("openvino-fp32", "openvino-bf16", "openvino-int8"),
}
"""Short names for several peers at once."""

DEFAULT_PEERS: tuple[str, ...] = tuple(name for name in PEERS if name not in ("torch-bf16", "compile-bf16"))
"""What is timed when nothing is asked for."""

REFERENCE = "torch-fp32"
"""Always timed: the ratios are to it."""


def parse_peers(names: Iterable[str] | str | None) -> list[Peer]:
    """Turn what the user typed into peers, in a fixed order, the reference first.

    Parameters
    ----------
    names : iterable of str, str or None
        Peer or group names, also as one comma-separated string; None takes `DEFAULT_PEERS`.

    Raises
    ------
    FewerError
        On a name that is neither a peer nor a group; the nearest one is named.

    Examples
    --------
    >>> [peer.name for peer in parse_peers("onnxruntime")]
    ['torch-fp32', 'onnxruntime-fp32', 'onnxruntime-int8']
    """
    if names is None:
        names = DEFAULT_PEERS
    if isinstance(names, str):
        names = [names]
    names = list(names) if isinstance(names, Iterable) else [names]
    if wrong := [name for name in names if not isinstance(name, str)]:
        raise FewerError(f"a runtime is given by its name, for example onnxruntime; got {str(wrong[0])[:60]}")
    wanted = {REFERENCE}
    for part in [part.strip().lower() for name in names for part in name.split(",")]:
        if part in PEERS:
            wanted.add(part)
        elif part in GROUPS:
            wanted.update(GROUPS[part])
        elif part:
            near = get_close_matches(part, [*GROUPS, *PEERS], 1, 0.4)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise FewerError(f"unknown peer {part!r}; {hint}known are {', '.join([*GROUPS, *PEERS])}")
    return [peer for peer in PEERS.values() if peer.name in wanted]


def missing_extra(peer: Peer) -> str | None:
    """Say why a peer cannot run for want of a package, or None when all is there."""
    missing = [module for module in peer.needs if importlib.util.find_spec(module) is None]
    return "pip install fewer[deploy]" if missing else None
