"""The task ``gait``: what verbs ask of it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewer.core.errors import FewerError
from fewer.core.progress import Progress
from fewer.tasks.gait.settings import EvaluateSettings, PredictSettings, TrainSettings
from fewer.tasks.task import Task

if TYPE_CHECKING:
    from torch import nn

    from fewer.models.spec import LoadedModel
    from fewer.tasks.findings import Repaired
    from fewer.tasks.gait.doctor import WalkCheckup
    from fewer.tasks.gait.evaluate import GaitQuality
    from fewer.tasks.gait.predict import Matched
    from fewer.tasks.gait.protocols.scores import Scores
    from fewer.tasks.gait.trained import TrainedGait
    from fewer.tasks.part import RuntimePart

__all__ = ["Gait"]

_PARTITION = 2**23
"""Bytes of a file in which a partition is looked for before the task is known."""


class Gait(Task):
    """Who walks, from silhouettes.

    Examples
    --------
    >>> Gait().recognises("no-such-folder")
    False
    """

    name = "gait"
    note = "who walks, from silhouettes"
    data = "a folder PERSON/KIND/VIEW of silhouettes: pkl files of OpenGait, npz files, mask images or videos"
    settings = TrainSettings
    evaluate_settings = EvaluateSettings
    predict_settings = PredictSettings

    def recognises(self, data: str | Path) -> bool:
        """Folders three deep with arrays or mask images in each, named as gait sets are or with a partition."""
        import re

        from fewer.tasks.gait.data.dataset import read_partition

        place = Path(data)
        with contextlib.suppress(FewerError, OSError):
            if place.is_dir() and read_partition(place, _PARTITION):
                return True
        for pattern in (r".+", r"(nm|bg|cl)-?\d+|\d\d", r"\d{3}"):
            below = sorted(p for p in place.iterdir() if p.is_dir()) if place.is_dir() else []
            if not below or re.fullmatch(pattern, below[0].name) is None:
                return False
            place = below[0]
        return any(p.suffix.lower() in (".pkl", ".npz", ".png") for p in place.iterdir())

    def networks(self) -> Mapping[str, str]:
        """Networks, with the parameter names of OpenGait."""
        from fewer.tasks.gait.networks import NETWORKS

        return NETWORKS

    def network(self, name: str, args: Mapping[str, Any]) -> nn.Module:
        """See :func:`fewer.tasks.gait.networks.build_network`."""
        from fewer.tasks.gait.networks import build_network

        return build_network({"network": name, **args})

    def plan(self, data: Any, settings: TrainSettings) -> Sequence[str]:
        """Persons and network of a training."""
        from fewer.tasks.gait.training import plan_training

        return plan_training(data, settings).lines()

    def train(self, data: Any, **options: Any) -> TrainedGait:  # type: ignore[override]
        """See :func:`fewer.tasks.gait.training.train`."""
        from fewer.tasks.gait.training import train

        return train(data, **options)

    def evaluate(self, target: str | Path, data: str | Path, **options: Any) -> Scores:  # type: ignore[override]
        """See :func:`fewer.tasks.gait.evaluate.evaluate`."""
        from fewer.tasks.gait.evaluate import evaluate

        return evaluate(target, data, **options)

    def predict(self, run: str | Path, inputs: str | Path, **options: Any) -> Matched:  # type: ignore[override]
        """See :func:`fewer.tasks.gait.predict.predict`."""
        from fewer.tasks.gait.predict import predict

        return predict(run, inputs, **options)

    def checkup(self, data: Any, *, progress: Progress | None = None) -> WalkCheckup:
        """See :func:`fewer.tasks.gait.doctor.checkup`."""
        from fewer.tasks.gait.doctor import checkup

        return checkup(data, progress=progress)

    def repair(self, found: WalkCheckup, out: str | Path, *, progress: Progress | None = None) -> Repaired:
        """See :func:`fewer.tasks.gait.repair.repair`."""
        from fewer.tasks.gait.repair import repair

        return repair(found, out, progress=progress)

    def images(self, loaded: LoadedModel, folder: str | Path, count: int, *, part: str, seed: int) -> Any:
        """See :func:`fewer.tasks.gait.inputs.walks_for`."""
        from fewer.tasks.gait.inputs import walks_for

        return walks_for(loaded, folder, count, part=part, seed=seed)

    def quality(self, loaded: LoadedModel, folder: str | Path) -> GaitQuality:
        """See :func:`fewer.tasks.gait.evaluate.quality`."""
        from fewer.tasks.gait.evaluate import quality

        return quality(loaded, folder)

    def distance(self, loaded: LoadedModel) -> Any:
        """See :class:`fewer.distortion.embedding.EmbeddingDistance`: embeddings are compared with each other."""
        from fewer.distortion.embedding import EmbeddingDistance

        return EmbeddingDistance

    def part(self, model: nn.Module, samples: Sequence[Any] = ()) -> RuntimePart | None:
        """The whole network, for sequences of any length."""
        import torch

        from fewer.tasks.gait.networks import GaitNetwork
        from fewer.tasks.part import RuntimePart

        if not isinstance(model, GaitNetwork):
            return None
        walk = samples[0] if samples else torch.rand(30, 64, 44, generator=torch.Generator().manual_seed(0))
        return RuntimePart(model, (walk[None],), walk[None], dynamic={1: "frames"})

    def demo(self, compress: Any, out: str | Path, **options: Any) -> Any:
        """See :func:`fewer.tasks.gait.demo.demo`."""
        from fewer.tasks.gait.demo import demo

        return demo(compress, out, **options)
