"""The task ``detect3d``: what verbs ask of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewer.core.progress import Progress
from fewer.tasks.detect3d.settings import EvaluateSettings, PredictSettings, TrainSettings
from fewer.tasks.task import Task

if TYPE_CHECKING:
    from torch import Tensor, nn

    from fewer.models.spec import LoadedModel
    from fewer.tasks.detect3d.doctor import ScanCheckup
    from fewer.tasks.detect3d.evaluate import DetectorQuality
    from fewer.tasks.detect3d.evaluation import DetectionScores
    from fewer.tasks.detect3d.predict import PredictedBoxes
    from fewer.tasks.detect3d.trained import TrainedDetector
    from fewer.tasks.findings import Repaired
    from fewer.tasks.part import RuntimePart

__all__ = ["Detect3D"]


class Detect3D(Task):
    """Boxes of cars, pedestrians and cyclists in LiDAR scans.

    Examples
    --------
    >>> Detect3D().recognises("no-such-folder")
    False
    """

    name = "detect3d"
    note = "boxes of cars, pedestrians and cyclists in LiDAR scans"
    data = "a folder of LiDAR scans: KITTI (velodyne/), OpenPCDet (points/), or sweeps (*.pcd.bin)"
    settings = TrainSettings
    evaluate_settings = EvaluateSettings
    predict_settings = PredictSettings

    def recognises(self, data: str | Path) -> bool:
        """A folder with one of the layouts of scans."""
        place = Path(data)
        if any((place / name).is_dir() for name in ("velodyne", "training/velodyne", "testing/velodyne")):
            return True
        points = place / "points"
        if points.is_dir() and any(any(points.glob(f"*{end}")) for end in (".npy", ".bin")):
            return True
        from fewer.tasks.detect3d.dataset import sweeps_below

        return sweeps_below(place) is not None

    def networks(self) -> Mapping[str, str]:
        """Networks, with the parameter names of OpenPCDet."""
        from fewer.tasks.detect3d.networks import NETWORKS

        return NETWORKS

    def network(self, name: str, args: Mapping[str, Any]) -> nn.Module:
        """See :func:`fewer.tasks.detect3d.networks.build_network`."""
        from fewer.tasks.detect3d.networks import build_network

        return build_network(args)

    def open_weights(self, state: Mapping[str, Tensor], name: str, config: str | None = None) -> LoadedModel | None:
        """See :func:`fewer.tasks.detect3d.openpcdet.model_of`."""
        from fewer.tasks.detect3d.openpcdet import model_of

        return model_of(state, name, config)

    def load_weights(self, model: nn.Module, state: Mapping[str, Tensor], name: str) -> bool:
        """See :func:`fewer.tasks.detect3d.openpcdet.fill`."""
        from fewer.tasks.detect3d.openpcdet import fill

        return fill(model, state, name)

    def plan(self, data: Any, settings: TrainSettings) -> Sequence[str]:
        """Scans and network of a training."""
        from fewer.tasks.detect3d.training import plan_training

        return plan_training(data, settings).lines()

    def train(self, data: Any, **options: Any) -> TrainedDetector:  # type: ignore[override]
        """See :func:`fewer.tasks.detect3d.training.train`."""
        from fewer.tasks.detect3d.training import train

        return train(data, **options)

    def evaluate(self, target: str | Path, data: str | Path, **options: Any) -> DetectionScores:  # type: ignore[override]
        """See :func:`fewer.tasks.detect3d.evaluate.evaluate`."""
        from fewer.tasks.detect3d.evaluate import evaluate

        return evaluate(target, data, **options)

    def predict(self, run: str | Path, inputs: str | Path, **options: Any) -> PredictedBoxes:  # type: ignore[override]
        """See :func:`fewer.tasks.detect3d.predict.predict`."""
        from fewer.tasks.detect3d.predict import predict

        return predict(run, inputs, **options)

    def checkup(self, data: Any, *, progress: Progress | None = None) -> ScanCheckup:
        """See :func:`fewer.tasks.detect3d.doctor.checkup`."""
        from fewer.tasks.detect3d.doctor import checkup

        return checkup(data, progress=progress)

    def repair(self, found: ScanCheckup, out: str | Path, *, progress: Progress | None = None) -> Repaired:
        """See :func:`fewer.tasks.detect3d.doctor.repair`."""
        from fewer.tasks.detect3d.doctor import repair

        return repair(found, out, progress=progress)

    def images(self, loaded: LoadedModel, folder: str | Path, count: int, *, part: str, seed: int) -> Any:
        """See :func:`fewer.tasks.detect3d.inputs.scans_for`."""
        from fewer.tasks.detect3d.inputs import scans_for

        return scans_for(loaded, folder, count, part=part, seed=seed)

    def quality(self, loaded: LoadedModel, folder: str | Path) -> DetectorQuality:
        """See :func:`fewer.tasks.detect3d.evaluate.quality`."""
        from fewer.tasks.detect3d.evaluate import quality

        return quality(loaded, folder)

    def distance(self, loaded: LoadedModel) -> Any:
        """See :class:`fewer.distortion.detection.DetectionDistance`."""
        from fewer.distortion.detection import DetectionDistance

        return DetectionDistance

    def part(self, model: nn.Module, samples: Sequence[Any] = ()) -> RuntimePart | None:
        """See :func:`fewer.tasks.detect3d.dense_part.dense_part`."""
        from fewer.tasks.detect3d.dense_part import dense_part
        from fewer.tasks.detect3d.networks import Detector

        return dense_part(model, samples) if isinstance(model, Detector) else None

    def demo(self, compress: Any, out: str | Path, **options: Any) -> Any:
        """See :func:`fewer.tasks.detect3d.demo.demo`."""
        from fewer.tasks.detect3d.demo import demo

        return demo(compress, out, **options)
