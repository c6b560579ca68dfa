"""Make ready what the timing processes load: inputs, weights, ONNX graph and int8 models, in one temp folder."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import pickle
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fewer.core.files import real_path
from fewer.models.running import attributes_kept, input_dtype
from fewer.timing.peers import Peer, missing_extra
from fewer.timing.process import prepare_in_process
from fewer.timing.runtimes import Job
from fewer.timing.sources import AcceleratedRun, RuntimeFile, Subject

__all__ = ["Skip", "Workshop"]


class Skip(Exception):
    """A peer that is left out, with the reason that its row shows. Not an error of the user's."""


class Workshop:
    """The temp folder of one bench and what was made in it; each piece is made once, when first asked for."""

    def __init__(
        self,
        subject: Subject,
        arguments: Sequence[Tensor],
        calibration: Tensor,
        folder: Path,
        threads: int,
    ) -> None:
        self.subject, self.arguments, self.folder, self.threads = subject, tuple(arguments), folder, threads
        self.inputs = str(folder / "inputs.npz")
        self.calibration = str(folder / "calibration.npz")
        np.savez(self.inputs, **{str(i): a.numpy() for i, a in enumerate(arguments)})  # pyright: ignore[reportArgumentType]
        np.savez(self.calibration, **{"0": calibration.detach().cpu().numpy()})  # pyright: ignore[reportArgumentType]
        self.judged: str | None = None
        self._made: dict[str, tuple[str, str] | Exception] = {}

    def judge(self, batches: Sequence[Tensor]) -> None:
        """Have errors taken from these inputs, instead of the one that is timed."""
        if batches:
            self.judged = str(self.folder / "judged.npz")
            np.savez(self.judged, *(batch.numpy() for batch in batches))

    def job(self, peer: Peer, threads: int) -> tuple[Job, str]:
        """The job of a peer and a note on how its model was made.

        Raises
        ------
        Skip
            When a package is missing.
        RuntimeError
            When the model cannot be exported or quantized.
        """
        extra = missing_extra(peer)
        if extra is not None:
            raise Skip(extra)
        if peer.runtime in ("torch", "compile"):
            return self.torch_job(peer.runtime, peer.precision, threads), ""
        if peer.precision == "int8":
            path, note = self._once(peer.name, lambda: self._int8(peer.runtime))
        else:
            path, note = self._once("onnx", self._onnx)
        return Job(peer.runtime, peer.precision, threads, self.inputs, path=path), note

    def torch_job(self, runtime: str, precision: str, threads: int) -> Job:
        """A job that runs the subject itself in torch."""
        if self.subject.source is not None:
            path, _ = self._once("weights", self._weights)
            return Job(runtime, precision, threads, self.inputs, path=path, source=self.subject.source)
        return self._sent(runtime, precision, threads, self.subject.model)

    def extra_job(self, target: Any, precision: str, threads: int) -> Job:
        """A job that runs any callable, or a run folder, on the same inputs."""
        if isinstance(target, RuntimeFile):
            path = str(real_path(target.path))
            return Job(target.runtime, precision, threads, self.inputs, path=path, rest=target.rest)
        if isinstance(target, AcceleratedRun):
            run = str(real_path(target.path))
            return Job("extra", precision, threads, self.inputs, run=run, accelerated=True)
        if isinstance(target, Path):
            return Job("extra", precision, threads, self.inputs, run=str(real_path(target)))
        return self._sent("extra", precision, threads, target)

    def _sent(self, runtime: str, precision: str, threads: int, target: Any) -> Job:
        try:
            payload = pickle.dumps(target)
        except Exception:  # closures, lambdas, local classes: timed in this process instead
            payload = None
        return Job(runtime, precision, threads, self.inputs, payload=payload, target=target)

    def _once(self, key: str, make: Any) -> tuple[str, str]:
        if key not in self._made:
            try:
                self._made[key] = make()
            except Exception as error:
                text = str(error).strip().splitlines()
                self._made[key] = RuntimeError(f"{text[0][:300] if text else type(error).__name__}")
        made = self._made[key]
        if isinstance(made, Exception):
            raise made
        return made

    def _weights(self) -> tuple[str, str]:
        from safetensors.torch import save_file

        path = self.folder / "weights.safetensors"
        # tied weights are written twice: the file lives as long as the bench
        save_file({k: v.detach().clone().contiguous() for k, v in self.subject.model.state_dict().items()}, path)
        return str(path), ""

    def _onnx(self) -> tuple[str, str]:
        path = self.folder / "model.onnx"
        big = sum(p.numel() * p.element_size() for p in self.subject.model.parameters()) > 1_800_000_000
        model, arguments = self.subject.model, tuple(a.clone() for a in self.arguments)
        if len(arguments) == 1:
            arguments = (arguments[0].to(input_dtype(model, arguments[0])),)
        with _quiet(), torch.no_grad(), attributes_kept(model):
            torch.onnx.export(model, arguments, path, dynamo=True, external_data=big, verbose=False, optimize=True)
        return str(path), ""

    def _int8(self, runtime: str) -> tuple[str, str]:
        onnx, _ = self._once("onnx", self._onnx)
        suffix = {"onnxruntime": "onnx", "openvino": "xml"}[runtime]
        arguments: dict[str, Any] = {
            "model": onnx,
            "calibration": self.calibration,
            "inputs": self.inputs,
            "out": str(self.folder / f"{runtime}-int8.{suffix}"),
            "threads": self.threads,
        }
        if runtime == "openvino":
            arguments["transformer"] = any(isinstance(m, nn.LayerNorm) for m in self.subject.model.modules())
        answer = prepare_in_process(runtime, arguments, self.folder / f"{runtime}-int8.log", self.threads)
        return answer["path"], answer["note"]


@contextlib.contextmanager
def _quiet():
    """Keep the exporter's chatter off the terminal."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            Path(os.devnull).open("w") as nowhere,
            contextlib.redirect_stderr(nowhere),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
