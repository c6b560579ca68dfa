"""Folders of keys and circuits: the client keeps one, the server gets another that holds no secret."""

from __future__ import annotations

import io
import json
import math
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fewer.core.errors import FewerError
from fewer.core.folder import finish_exchange
from fewer.core.reading import check_size, data_limit, parse_json, read_arrays, read_bytes, read_text, refusing
from fewer.core.staging import write_together
from fewer.private.circuit import INPUT, Circuit, Linear, Square, Step
from fewer.private.folder import CIRCUIT, PUBLIC, SECRET, KeysFolder
from fewer.private.security import Parameters

__all__ = ["Public", "load_circuit", "load_public", "load_secret", "save_circuit", "save_keys"]

_FORMAT = 3


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
    mean, std, interpolation, crop
        Of the preprocessing.
    answer
        Shape of the results for one image, with a leading 1; empty where they are a row.
    left
        What the client does with the results, the last one first, see :mod:`fewer.private.left`.
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
    interpolation: str = "bicubic"
    crop: float = 1.0
    answer: tuple[int, ...] = ()
    left: tuple[tuple[str, int], ...] = ()

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
                "input_bits": p.input_bits,
                "security": "128 bits",
                "shape": self.shape,
                "inputs": np.asarray(self.inputs).tolist(),
                "outputs": np.asarray(self.outputs).tolist(),
                "input_ciphertexts": self.input_ciphertexts,
                "turns": self.turns,
                "mean": self.mean,
                "std": self.std,
                "interpolation": self.interpolation,
                "crop": self.crop,
                "answer": self.answer,
                "left": self.left,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Public:
        """Read :meth:`to_json` back; anything else is one sentence."""
        try:
            d = parse_json(text, "the description of the circuit", finite=True)
            if d["format"] != _FORMAT:
                raise FewerError(f"the circuit has format {d['format']}; this version reads {_FORMAT}")
            parameters = Parameters(int(d["degree"]), tuple(d["bits"]), int(d["scale_bits"]), int(d["input_bits"]))
            inputs, outputs = (np.asarray(d[k], dtype=np.int64) for k in ("inputs", "outputs"))
            count = int(d["input_ciphertexts"])
            fits = 1 <= count <= 64 and inputs.ndim == 2 and inputs.min() >= 0 and outputs.min() >= 0
            if not fits or inputs.max() >= count * parameters.slots or outputs.max() >= parameters.slots:
                raise ValueError("slots outside of the ciphertexts")
            shape = tuple(int(n) for n in d["shape"])
            if min(shape) < 1 or math.prod(shape) != inputs.shape[1] or outputs.ndim != 1:
                raise ValueError("the shape of an input is not that of its slots")
            answer = tuple(int(n) for n in d.get("answer", ()))
            if answer and math.prod(answer) != len(outputs):
                raise ValueError("the shape of the results is not that of their slots")
            return cls(
                str(d["name"]),
                parameters,
                shape,
                inputs,
                outputs,
                count,
                tuple(int(t) for t in d["turns"]),
                str(d["circuit"]),
                tuple(float(v) for v in d["mean"]),
                tuple(float(v) for v in d["std"]),
                str(d.get("interpolation", "bicubic")),
                float(d.get("crop", 1.0)),
                answer,
                tuple((str(name), int(axis)) for name, axis in d.get("left", ())),
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise FewerError(f"this is no description of a circuit ({error!r}); compile the network again") from None

    def pack(self, image: np.ndarray) -> np.ndarray:
        """One image as slots [ciphertexts, slots].

        Raises
        ------
        FewerError
            For another size, and for values that are no numbers or that no ciphertext holds.
        """
        image = np.asarray(image)
        if image.dtype.kind not in "fiub":
            raise FewerError(f"an image of {image.dtype} was given; the circuit takes real numbers")
        image = image.astype(float)
        if not np.isfinite(image).all():
            raise FewerError("the image holds NaN or infinite numbers; give it as the network takes it")
        if image.size != self.inputs.shape[1]:
            raise FewerError(f"an image of shape {image.shape} was given; the circuit takes {self.shape}")
        found = np.zeros(self.input_ciphertexts * self.parameters.slots)
        found[self.inputs] = image.reshape(-1)
        return found.reshape(self.input_ciphertexts, -1)


def save_circuit(
    folder: str | Path,
    circuit: Circuit,
    parameters: Parameters,
    name: str,
    mean: Any = (0.0,),
    std: Any = (1.0,),
    page: Mapping[str, str] | None = None,
    **told: Any,
) -> Public:
    """Write ``circuit.npz`` (for the server: the weights) and ``public.json`` (for clients).

    Parameters
    ----------
    folder
        Of the files; see :class:`~fewer.private.folder.CircuitFolder`.
    circuit, parameters
        What is computed, and the scheme.
    name
        Of the network.
    mean, std
        Of the preprocessing.
    page
        Texts of the page and of its numbers that are written beside them, by file name.
    told
        ``interpolation``, ``crop``, ``answer`` and ``left`` of :class:`Public`.
    """
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
        **told,
    )
    arrays: dict[str, np.ndarray] = {"circuit": np.frombuffer(public.circuit.encode(), dtype=np.uint8)}
    steps: list[Mapping[str, Any]] = []
    for i, step in enumerate(circuit.steps):
        if isinstance(step, Linear):
            keys = np.array(list(step.diagonals), dtype=np.int64)
            dense = np.stack([np.asarray(v) for v in step.diagonals.values()])
            at = np.flatnonzero(dense)
            arrays |= {f"{i}.keys": keys, f"{i}.at": at, f"{i}.values": dense.reshape(-1)[at]}
            arrays[f"{i}.bias"] = np.stack(step.bias)
            kept = {"folds": list(step.folds), "sources": list(circuit.sources()[i])}
            steps.append({"kind": "linear", "name": step.name, **kept})
        else:
            if step.add is not None:
                arrays[f"{i}.add"] = step.add
            square = {"kind": "square", "name": step.name, "outputs": step.outputs, "rescaled": step.rescaled}
            steps.append(square)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, steps=np.frombuffer(json.dumps(steps).encode(), dtype=np.uint8), **arrays)  # type: ignore[arg-type]
    write_together(folder, {CIRCUIT: buffer.getvalue(), PUBLIC: public.to_json(), **(page or {})})
    return public


def load_public(place: str | Path) -> Public:
    """The description of a circuit from its folder or file."""
    place = Path(place)
    finish_exchange(place)
    path = place / PUBLIC if place.is_dir() else place
    if not path.is_file():
        folder = place.parent if place.suffix == ".json" else place  # the file itself was meant
        made = f"fewer private compile MODEL --images FOLDER --out {folder}"
        raise FewerError(f"{folder} holds no {PUBLIC if folder == place else place.name}; make it with: {made}")
    try:
        return Public.from_json(read_text(path, what="description of a circuit"))
    except FewerError as error:
        raise FewerError(f"{path}: {error}") from None


def load_circuit(folder: str | Path) -> tuple[Circuit, Public]:
    """A circuit with its weights."""
    folder, public = Path(folder), load_public(folder)
    slots = public.parameters.slots
    steps: list[Step] = []
    with refusing(str(folder / CIRCUIT), "compile the network again"):
        z = read_arrays(folder / CIRCUIT, limit=None)
        if z["circuit"].tobytes().decode() != public.circuit:
            raise FewerError(
                f"{folder / CIRCUIT} is not the circuit that {PUBLIC} describes; compile the network again"
            )
        counts = {INPUT: public.input_ciphertexts}
        for i, d in enumerate(parse_json(z["steps"].tobytes(), str(folder / CIRCUIT), finite=True)):
            if d["kind"] == "linear":
                sources = tuple(int(s) for s in d["sources"])
                if not sources or len(set(sources)) < len(sources) or any(not INPUT <= s < i for s in sources):
                    raise ValueError("a layer reads what is not there")
                step: Step = _linear(z, i, d, slots, sum(counts[s] for s in sources))
                step = replace(step, sources=sources)
            else:
                step = _square(z.get(f"{i}.add"), d, slots, counts[i - 1])
            steps.append(step)
            counts[i] = len(step.bias) if isinstance(step, Linear) else step.outputs
    circuit = Circuit(tuple(steps), slots, public.shape, public.inputs, public.input_ciphertexts, public.outputs)
    return circuit, public


def _linear(z: Mapping[str, np.ndarray], i: int, d: Mapping[str, Any], slots: int, have: int) -> Linear:
    """One linear layer of a file, on so many ciphertexts."""
    bias, table = z[f"{i}.bias"], z[f"{i}.keys"]
    if table.ndim != 2 or table.shape[1] != 3 or table.dtype.kind not in "iu" or bias.shape[1:] != (slots,):
        raise ValueError("diagonals and biases of a layer do not fit the ciphertexts")
    keys = [(int(out), int(source), int(turn)) for out, source, turn in table]
    for out, source, turn in keys:
        if not (0 <= out < len(bias) and 0 <= source < have and abs(turn) < slots):
            raise ValueError("a diagonal lies outside of the ciphertexts")
    folds = tuple(int(f) for f in d["folds"])
    if len(folds) > 64 or any(not 0 < abs(f) < slots for f in folds):
        raise ValueError("a rotation is longer than a ciphertext")
    check_size(8 * len(keys) * slots, data_limit(), "a layer of the circuit")
    dense = np.zeros(len(keys) * slots)
    dense[z[f"{i}.at"]] = z[f"{i}.values"]
    if not (np.isfinite(dense).all() and np.isfinite(bias).all()):
        raise ValueError("a weight is not finite")
    found = dict(zip(keys, dense.reshape(-1, slots), strict=True))
    return Linear.build(str(d["name"]), found, tuple(bias.astype(float)), folds, slots)


def _square(add: np.ndarray | None, d: Mapping[str, Any], slots: int, have: int) -> Square:
    """A square behind so many ciphertexts."""
    if int(d["outputs"]) != have:
        raise ValueError("a square has other ciphertexts than the layer before it")
    if add is not None and (
        np.broadcast_shapes(add.shape, (have, slots)) != (have, slots) or not np.isfinite(add).all()
    ):
        raise ValueError("an addition does not fit the ciphertexts")
    return Square(str(d["name"]), add, have, bool(d["rescaled"]))


def save_keys(folder: str | Path, public: Public) -> Path:
    """Make keys for a circuit: ``secret.key`` for its owner alone, ``relin.key`` and ``galois.key`` for the server.

    Raises
    ------
    FewerError
        When a secret key is there already: what was encrypted with it could not be read any more.
    """
    from fewer.private.seal import make_keys

    with KeysFolder.create(folder) as made:
        secret, keys = make_keys(public.parameters, public.turns)
        files = {f"{name}.key": data for name, data in keys.items()}
        texts = {PUBLIC: public.to_json(), "id": secrets.token_hex(16)}
        write_together(made.path, {SECRET: secret, **files, **texts}, secret=[SECRET])
    return made.home


def load_secret(folder: str | Path) -> tuple[Public, bytes, dict[str, bytes], str]:
    """``(public, secret key, evaluation keys, name of the key)`` of a client's folder."""
    folder = Path(folder)
    finish_exchange(folder)
    if missing := [one for one in ("relin.key", "galois.key", SECRET, "id") if not (folder / one).exists()]:
        raise FewerError(f"{folder} holds no keys ({missing[0]} is missing); make them with: fewer private keys")
    keys = {name: read_bytes(folder / f"{name}.key", data_limit()) for name in ("relin", "galois")}
    secret, name = read_bytes(folder / SECRET), read_text(folder / "id", what="name of a key").strip()
    if not (folder / PUBLIC).is_file():
        raise FewerError(f"{folder} holds keys without their {PUBLIC}; make keys anew with: fewer private keys")
    return load_public(folder), secret, keys, name
