"""The task ``segment``: what verbs ask of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewer.core.progress import Progress
from fewer.tasks.folders import pictures_and_masks
from fewer.tasks.segment.settings import EvaluateSettings, PredictSettings, TrainSettings
from fewer.tasks.task import Task

if TYPE_CHECKING:
    from torch import nn

    from fewer.models.spec import LoadedModel
    from fewer.tasks.findings import Repaired
    from fewer.tasks.segment.doctor import Checkup
    from fewer.tasks.segment.evaluate import Labelled
    from fewer.tasks.segment.evaluation import Evaluation
    from fewer.tasks.segment.predict import Predicted
    from fewer.tasks.segment.trained import TrainedRun

__all__ = ["Segment"]

NETWORKS = {
    "unet": "residual U-Net, small and quick; one output",
    "dynunet": "the U-Net of nnU-Net; deep supervision",
    "segresnet": "residual encoder and decoder; deep supervision",
    "mednext": "ConvNeXt-like U-Net; deep supervision",
    "attention-unet": "U-Net with attention gates; one output",
    "basic-unet": "plain U-Net with 5 levels; one output",
}
"""Here, and not where the networks are built, so that a list needs no torch."""


class Segment(Task):
    """Segmentation: a class for every pixel of 2-D images, or every voxel of volumes.

    Each method is a function of a module beside this one, which is imported when it is called.

    Examples
    --------
    >>> Segment().recognises("no-such-folder")
    False
    """

    name = "segment"
    note = "a class for every pixel or voxel, in 2-D and 3-D; needs the extra fewer[medical]"
    data = "a folder with images/ and masks/, or a raw folder of nnU-Net"
    settings = TrainSettings
    warms_up = True
    evaluate_settings = EvaluateSettings
    predict_settings = PredictSettings

    def recognises(self, data: str | Path) -> bool:
        """A folder with masks, or one of nnU-Net."""
        place = Path(data)
        known = (place / "imagesTr").is_dir() or (place / "dataset.json").is_file()
        return known or pictures_and_masks(place) is not None

    def networks(self) -> Mapping[str, str]:
        """Networks of MONAI."""
        return NETWORKS

    def plan(self, data: Any, settings: TrainSettings) -> Sequence[str]:
        """Cases, network and memory of a training."""
        from fewer.tasks.segment.training import plan_training

        return plan_training(data, settings).lines()

    def train(self, data: Any, **options: Any) -> TrainedRun:  # type: ignore[override]
        """See :func:`fewer.tasks.segment.training.train`."""
        from fewer.tasks.segment.training import train

        return train(data, **options)

    def evaluate(self, target: str | Path, data: str | Path, **options: Any) -> Evaluation:  # type: ignore[override]
        """See :func:`fewer.tasks.segment.evaluate.evaluate`."""
        from fewer.tasks.segment.evaluate import evaluate

        return evaluate(target, data, **options)

    def predict(self, run: str | Path, inputs: str | Path, **options: Any) -> Predicted:  # type: ignore[override]
        """See :func:`fewer.tasks.segment.predict.predict`."""
        from fewer.tasks.segment.predict import predict

        return predict(run, inputs, **options)

    def checkup(self, data: Any, *, progress: Progress | None = None) -> Checkup:
        """See :func:`fewer.tasks.segment.doctor.checkup`."""
        from fewer.tasks.segment.doctor import checkup

        return checkup(data, progress=progress)

    def repair(self, found: Checkup, out: str | Path, *, progress: Progress | None = None) -> Repaired:
        """See :func:`fewer.tasks.segment.repair.repair`."""
        from fewer.tasks.segment.repair import repair

        return repair(found, out, progress=progress)

    def network(self, name: str, args: Mapping[str, Any]) -> nn.Module:
        """A network that recipes describe by name: see :mod:`fewer.tasks.segment.adapt_network`."""
        from fewer.tasks.segment.adapt_network import build_adapted

        return build_adapted(name, args)

    def images(self, loaded: LoadedModel, folder: str | Path, count: int, *, part: str, seed: int) -> Any:
        """See :func:`fewer.tasks.segment.inputs.images`."""
        from fewer.tasks.segment.inputs import images

        return images(loaded, folder, count, part=part, seed=seed)

    def quality(self, loaded: LoadedModel, folder: str | Path) -> Labelled:
        """See :func:`fewer.tasks.segment.evaluate.quality`."""
        from fewer.tasks.segment.evaluate import quality

        return quality(loaded, folder)

    def warm_features(self, files: Sequence[Path], out: Path, **more: Any) -> nn.Module:
        """See :func:`fewer.tasks.segment.features.warm_features`."""
        from fewer.tasks.segment.features import warm_features

        return warm_features(files, out, **more)
