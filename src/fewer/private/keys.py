"""Folders of keys and circuits: the client keeps one, the server gets another that holds no secret."""

from __future__ import annotations

import io
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fewer.core.errors import FewerError
from fewer.core.files import atomic_write_bytes, atomic_write_text
from fewer.core.reading import check_size, data_limit, parse_json, read_arrays, read_text, refusing
from fewer.private.circuit import Circuit, Linear, Square, Step
from fewer.private.security import Parameters

__all__ = ["Public", "check_out", "load_circuit", "load_public", "load_secret", "save_circuit", "save_keys"]

CIRCUIT, PUBLIC, SECRET = "circuit.npz", "public.json", "secret.key"
_FORMAT = 1


@dataclass(frozen=True)
class Public:
    """What a client has to know of a circuit: no weight is in it.

    Attributes
    ----------
    name
        Of the network.
    parameters
        Of the scheme.
    shape
        Of an input.
    inputs, outputs
        Slots, as in :class:`~fewer.private.circuit.Circuit`.
    input_ciphertexts
        Of a query.
    turns
        Rotations that keys are made for.
    circuit
        A random name of the circuit; keys and queries carry it.
    mean, std
        Of the preprocessing.
    """

    name: str
    parameters: Parameters
    shape: tuple[int, ...]
    inputs: np.ndarray
    outputs: np.ndarray
    input_ciphertexts: int
    turns: tuple[int, ...]
    circuit: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def to_json(self) -> str:
        """Text for a file or a response."""
        p = self.parameters
        return json.dumps(
            {
                "format": _FORMAT,
                "name": self.name,
                "circuit": self.circuit,
                "degree": p.degree,
                "bits": p.bits,
                "scale_bits": p.scale_bits,
                "security": "128 bits",
                "shape": self.shape,
                "inputs": np.asarray(self.inputs).tolist(),
                "outputs": np.asarray(self.outputs).tolist(),
                "input_ciphertexts": self.input_ciphertexts,
                "turns": self.turns,
                "mean": self.mean,
                "std": self.std,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Public:
        """Read :meth:`to_json` back; anything else is one sentence."""
        try:
            d = parse_json(text, "the description of the circuit", finite=True)
            if d["format"] != _FORMAT:
                raise FewerError(f"the circuit has format {d['format']}; this version reads {_FORMAT}")
            parameters = Parameters(int(d["degree"]), tuple(d["bits"]), int(d["scale_bits"]))
            inputs, outputs = (np.asarray(d[k], dtype=np.int64) for k in ("inputs", "outputs"))
            count = int(d["input_ciphertexts"])
            fits = 1 <= count <= 64 and inputs.ndim == 2 and inputs.min() >= 0 and outputs.min() >= 0
            if not fits or inputs.max() >= count * parameters.slots or outputs.max() >= parameters.slots:
                raise ValueError("slots outside of the ciphertexts")
            return cls(
                str(d["name"]),
                parameters,
                tuple(int(n) for n in d["shape"]),
                inputs,
                outputs,
                count,
                tuple(int(t) for t in d["turns"]),
                str(d["circuit"]),
                tuple(float(v) for v in d["mean"]),
                tuple(float(v) for v in d["std"]),
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise FewerError(f"this is no description of a circuit ({error!r}); compile the network again") from None

    def pack(self, image: np.ndarray) -> np.ndarray:
        """One image as slots [ciphertexts, slots]."""
        image = np.asarray(image, dtype=float)
        if image.size != self.inputs.shape[1]:
            raise FewerError(f"an image of shape {image.shape} was given; the circuit takes {self.shape}")
        found = np.zeros(self.input_ciphertexts * self.parameters.slots)
        found[self.inputs] = image.reshape(-1)
        return found.reshape(self.input_ciphertexts, -1)


def check_out(folder: str | Path, overwrite: bool = False) -> None:
    """Tell before any work that a circuit cannot be written here.

    Raises
    ------
    FewerError
        For a file, or a folder with a circuit that may not be replaced.

    Examples
    --------
    >>> check_out("no-such-folder")
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise FewerError(f"--out {folder} is a file; give a folder")
    if (folder / PUBLIC).exists() and not overwrite:
        raise FewerError(f"{folder} holds a circuit already; give another --out, or --overwrite and make keys anew")


def save_circuit(
    folder: str | Path, circuit: Circuit, parameters: Parameters, name: str, mean: Any = (0.0,), std: Any = (1.0,)
) -> Public:
    """Write ``circuit.npz`` (for the server: the weights) and ``public.json`` (for clients)."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    public = Public(
        name,
        parameters,
        circuit.shape,
        circuit.inputs,
        circuit.outputs,
        circuit.input_ciphertexts,
        tuple(circuit.turns()),
        secrets.token_hex(16),
        tuple(mean),
        tuple(std),
    )
    arrays: dict[str, np.ndarray] = {}
    steps: list[Mapping[str, Any]] = []
    for i, step in enumerate(circuit.steps):
        if isinstance(step, Linear):
            keys = np.array(list(step.diagonals), dtype=np.int64)
            dense = np.stack([np.asarray(v) for v in step.diagonals.values()])
            at = np.flatnonzero(dense)
            arrays |= {f"{i}.keys": keys, f"{i}.at": at, f"{i}.values": dense.reshape(-1)[at]}
            arrays[f"{i}.bias"] = np.stack(step.bias)
            steps.append({"kind": "linear", "name": step.name, "folds": list(step.folds)})
        else:
            if step.add is not None:
                arrays[f"{i}.add"] = step.add
            steps.append({"kind": "square", "name": step.name, "outputs": step.outputs})
    buffer = io.BytesIO()
    np.savez_compressed(buffer, steps=np.frombuffer(json.dumps(steps).encode(), dtype=np.uint8), **arrays)  # type: ignore[arg-type]
    atomic_write_bytes(folder / CIRCUIT, buffer.getvalue())
    atomic_write_text(folder / PUBLIC, public.to_json())
    return public


def load_public(place: str | Path) -> Public:
    """The description of a circuit from its folder or file."""
    place = Path(place)
    path = place / PUBLIC if place.is_dir() else place
    if not path.is_file():
        raise FewerError(f"{place} holds no {PUBLIC}; make it with: fewer private compile MODEL --out {place}")
    return Public.from_json(read_text(path, what="description of a circuit"))


def load_circuit(folder: str | Path) -> tuple[Circuit, Public]:
    """A circuit with its weights."""
    folder, public = Path(folder), load_public(folder)
    slots = public.parameters.slots
    steps: list[Step] = []
    with refusing(str(folder / CIRCUIT), "compile the network again"):
        z = read_arrays(folder / CIRCUIT, limit=None)
        for i, d in enumerate(parse_json(z["steps"].tobytes(), str(folder / CIRCUIT))):
            if d["kind"] == "linear":
                keys = [tuple(int(n) for n in k) for k in z[f"{i}.keys"]]
                check_size(8 * len(keys) * slots, data_limit(), f"a layer of {folder / CIRCUIT}")
                dense = np.zeros(len(keys) * slots)
                dense[z[f"{i}.at"]] = z[f"{i}.values"]
                found = dict(zip(keys, dense.reshape(-1, slots), strict=True))
                bias = tuple(z[f"{i}.bias"])
                steps.append(Linear.build(d["name"], found, bias, tuple(int(f) for f in d["folds"]), slots))
            else:
                steps.append(Square(d["name"], z.get(f"{i}.add"), int(d["outputs"])))
    circuit = Circuit(tuple(steps), slots, public.shape, public.inputs, public.input_ciphertexts, public.outputs)
    return circuit, public


def save_keys(folder: str | Path, public: Public) -> Path:
    """Make keys for a circuit: ``secret.key`` for its owner alone, ``relin.key`` and ``galois.key`` for the server.

    Raises
    ------
    FewerError
        When a secret key is there already: what was encrypted with it could not be read any more.
    """
    from fewer.private.seal import make_keys

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if (folder / SECRET).exists():
        raise FewerError(f"{folder / SECRET} exists; a new key would make old answers unreadable, so give a new folder")
    secret, keys = make_keys(public.parameters, public.turns)
    atomic_write_bytes(folder / SECRET, secret)
    (folder / SECRET).chmod(0o600)
    for name, data in keys.items():
        atomic_write_bytes(folder / f"{name}.key", data)
    atomic_write_text(folder / PUBLIC, public.to_json())
    atomic_write_text(folder / "id", secrets.token_hex(16))
    return folder


def load_secret(folder: str | Path) -> tuple[Public, bytes, dict[str, bytes], str]:
    """``(public, secret key, evaluation keys, name of the key)`` of a client's folder."""
    folder = Path(folder)
    try:
        keys = {name: (folder / f"{name}.key").read_bytes() for name in ("relin", "galois")}
        secret, name = (folder / SECRET).read_bytes(), read_text(folder / "id", what="name of a key").strip()
    except OSError as error:
        raise FewerError(f"{folder} holds no keys ({error.strerror}); make them with: fewer private keys") from None
    if not (folder / PUBLIC).is_file():
        raise FewerError(f"{folder} holds keys without their {PUBLIC}; make keys anew with: fewer private keys")
    return load_public(folder), secret, keys, name
