"""A circuit tried out with both parties in one process: answers, times and noise, on SEAL or on the simulator."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from fewer.core.progress import SILENT, Progress
from fewer.private.circuit import Circuit
from fewer.private.execute import Runner
from fewer.private.seal import Client, Evaluator, has_seal, make_keys, to_bytes
from fewer.private.security import Parameters
from fewer.private.simulator import Simulator

__all__ = ["Depth", "Trial", "try_circuit"]


@dataclass(frozen=True)
class Depth:
    """Where a query stands after one step.

    Attributes
    ----------
    name
        Of the step.
    levels
        That are left.
    bits
        Binary digits behind the leading one of the largest slot that are right: the largest slot over the largest
        difference from the slots in the clear.
    modelled
        The same by the simulator's model, with three standard deviations of its noise as the difference.
    """

    name: str
    levels: int
    bits: float
    modelled: float


@dataclass(frozen=True, eq=False)
class Trial:
    """What came out.

    Attributes
    ----------
    encrypted
        False where the simulator stood in for SEAL: nothing was encrypted and no time means anything.
    scores, clear
        Results [N, outputs], decrypted and of the same circuit in the clear.
    seconds
        Processor time of the steps of each query, without what is read and written.
    step_ms
        Median of each step.
    depths
        Of the first image.
    message_ms
        Median of reading a query and writing its answer, which a server does, too.
    query_bytes, answer_bytes
        Of one image.
    """

    encrypted: bool
    scores: np.ndarray
    clear: np.ndarray
    seconds: np.ndarray
    step_ms: list[float]
    depths: list[Depth]
    message_ms: float = 0.0
    query_bytes: int = 0
    answer_bytes: int = 0

    @property
    def difference(self) -> float:
        """The largest between decrypted results and those in the clear."""
        return float(np.abs(self.scores - self.clear).max())

    @property
    def same(self) -> float:
        """Share of the images that both name alike."""
        return float((self.scores.argmax(1) == self.clear.argmax(1)).mean())

    @property
    def ms(self) -> float:
        """Median of one query on the server."""
        return 1e3 * float(np.median(self.seconds)) + self.message_ms


class _Seal:
    """Both parties, with keys of their own."""

    def __init__(self, circuit: Circuit, parameters: Parameters) -> None:
        secret, public = make_keys(parameters, circuit.turns())
        self.backend: Any = Evaluator(parameters, **public)
        self._client = Client(parameters, secret)
        self.sizes = [0, 0]
        self.messages: list[float] = []

    def encrypt(self, slots: np.ndarray) -> list[Any]:
        sent = [self._client.encrypt(v) for v in slots]
        self.sizes[0] = sum(map(len, sent))
        start = time.thread_time()
        found = [self.backend.load(one) for one in sent]
        self.messages.append(time.thread_time() - start)
        return found

    def decrypt(self, x: Any) -> np.ndarray:
        start = time.thread_time()
        data = to_bytes(x)
        self.messages[-1] += time.thread_time() - start
        self.sizes[1] = len(data)
        return self._client.decrypt(data)


class _Simulated:
    """The simulator as both parties."""

    def __init__(self, parameters: Parameters, seed: int) -> None:
        self.backend = Simulator(parameters, seed)
        self.sizes = [0, 0]
        self.messages = [0.0]

    def encrypt(self, slots: np.ndarray) -> list[Any]:
        return [self.backend.encrypt(v) for v in slots]

    def decrypt(self, x: Any) -> np.ndarray:
        return self.backend.decrypt(x)


def try_circuit(
    circuit: Circuit,
    parameters: Parameters,
    images: np.ndarray,
    *,
    seed: int = 0,
    simulated: bool = False,
    name: str = "encrypted",
    progress: Progress = SILENT,
) -> Trial:
    """Encrypt images, run the circuit on the ciphertexts, and decrypt the results.

    Both parties are in this process; the evaluator is built of the public keys alone, as on a server. Of the first
    image the ciphertexts are decrypted after every step, which only the owner of the key can do.

    Parameters
    ----------
    circuit, parameters
        Of :func:`~fewer.private.compile.compile_circuit`.
    images
        [N, channels, height, width] as the network takes them.
    seed
        Of the simulator's noise.
    simulated
        Take the simulator even where TenSEAL is installed.
    name
        What the progress shows.

    Examples
    --------
    >>> import torch
    >>> from fewer.private.compile import compile_circuit
    >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    >>> images = torch.randn(20, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    >>> trial = try_circuit(*compile_circuit(net, images), images[:2].numpy(), simulated=True)
    >>> trial.encrypted, trial.difference < 0.1, [d.levels for d in trial.depths]
    (False, True, [1, 1, 0])
    """
    party: _Seal | _Simulated
    party = _Simulated(parameters, seed) if simulated or not has_seal() else _Seal(circuit, parameters)
    runner, clear = Runner(circuit, party.backend), circuit.run(images)
    depths: list[Depth] = []
    scores, seconds, steps = [], [], []
    with progress.stage(name, len(images)) as stage:
        for i, image in enumerate(images):
            sent = party.encrypt(circuit.pack(image))
            if i == 0:  # a run of its own, as looking between the steps warms up caches
                depths = _look(circuit, parameters, runner, party, sent, circuit.pack(image))
                sent = party.encrypt(circuit.pack(image))  # a query of its own, of which one answer is written
            result = runner(sent)
            scores.append(circuit.unpack(party.decrypt(result)))
            seconds.append(sum(runner.seconds))
            steps.append(runner.seconds)
            stage.advance()
    step_ms = (1e3 * np.median(np.array(steps), axis=0)).tolist()
    encrypted = isinstance(party, _Seal)
    message = 1e3 * float(np.median(party.messages[-len(seconds) :]))
    return Trial(encrypted, np.stack(scores), clear, np.array(seconds), step_ms, depths, message, *party.sizes)


def _look(
    circuit: Circuit, parameters: Parameters, runner: Runner, party: Any, sent: list[Any], slots: np.ndarray
) -> list[Depth]:
    """Decrypt after every step, and hold it against the slots in the clear and against the model of the noise."""
    model = Simulator(parameters)
    noises: list[float] = []
    Runner(circuit, model)(
        [model.encrypt(v) for v in slots], lambda _, x: noises.append(max(float(c.noise.max()) for c in x))
    )
    found: list[Depth] = []
    behind = circuit.walk(slots[None])

    def watch(i: int, ciphertexts: list[Any]) -> None:
        x = behind[i]
        got = np.stack([party.decrypt(c) for c in ciphertexts])
        largest, differ = float(np.abs(x).max()), float(np.abs(got - x[0]).max())
        bits, modelled = (math.log2(max(largest / max(d, 1e-300), 1.0)) for d in (differ, 3 * noises[i]))
        found.append(Depth(circuit.steps[i].name, runner.backend.level(ciphertexts[0]), bits, modelled))

    runner(sent, watch)
    return found
