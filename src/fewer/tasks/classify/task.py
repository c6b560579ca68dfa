"""The task ``classify``: what verbs ask of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewer.core.progress import Progress
from fewer.tasks.classify.settings import EvaluateSettings, PredictSettings, TrainSettings
from fewer.tasks.task import Task

if TYPE_CHECKING:
    from torch import nn

    from fewer.models.spec import LoadedModel
    from fewer.tasks.classify.doctor import Checkup
    from fewer.tasks.classify.evaluate import Accuracy
    from fewer.tasks.classify.evaluation import Evaluation
    from fewer.tasks.classify.predict import Predicted
    from fewer.tasks.classify.trained import TrainedRun

__all__ = ["Classify"]


class Classify(Task):
    """Classification: one class for every image.

    Each method is a function of a module beside this one, which is imported when it is called.

    Examples
    --------
    >>> Classify().recognises("no-such-folder")
    False
    """

    name = "classify"
    note = "one class for every image"
    data = "a folder with one folder of images per class, a table of labels, or CIFAR, MNIST or npz files"
    settings = TrainSettings
    evaluate_settings = EvaluateSettings
    predict_settings = PredictSettings

    def recognises(self, data: str | Path) -> bool:
        """See :func:`fewer.tasks.classify.readers.format_of`."""
        from fewer.tasks.classify.readers import format_of

        return bool(format_of(data))

    def networks(self) -> Mapping[str, str]:
        """Networks for 32 pixels, and the specs of others."""
        from fewer.tasks.classify.networks import NETWORKS

        own = {"auto": "that of the run in --init, else resnet20"}
        return {**own, **NETWORKS.notes(), "MODEL": "any classifier of: fewer list models"}

    def network(self, name: str, args: Mapping[str, Any]) -> nn.Module:
        """See :func:`fewer.tasks.classify.networks.build`."""
        from fewer.tasks.classify.networks import build

        return build(name, **args)

    def plan(self, data: Any, settings: TrainSettings) -> Sequence[str]:
        """Images and network of a training."""
        from fewer.tasks.classify.training import prepare

        return prepare(data, settings).lines()

    def train(self, data: Any, **options: Any) -> TrainedRun:  # type: ignore[override]
        """See :func:`fewer.tasks.classify.training.train`."""
        from fewer.tasks.classify.training import train

        return train(data, **options)

    def evaluate(self, target: str | Path, data: str | Path, **options: Any) -> Evaluation:  # type: ignore[override]
        """See :func:`fewer.tasks.classify.evaluate.evaluate`."""
        from fewer.tasks.classify.evaluate import evaluate

        return evaluate(target, data, **options)

    def predict(self, run: str | Path, inputs: str | Path, **options: Any) -> Predicted:  # type: ignore[override]
        """See :func:`fewer.tasks.classify.predict.predict`."""
        from fewer.tasks.classify.predict import predict

        return predict(run, inputs, **options)

    def checkup(self, data: Any, *, progress: Progress | None = None) -> Checkup:
        """See :func:`fewer.tasks.classify.doctor.checkup`."""
        from fewer.tasks.classify.doctor import checkup

        return checkup(data, progress=progress)

    def reads(self, inputs: str | Path) -> bool:
        """Folders of ordinary image files are read by the engine."""
        from fewer.tasks.classify.readers import format_of

        found = format_of(inputs)
        return found not in ("", "folder with a table") and not found.startswith("folders by class")

    def images(self, loaded: LoadedModel, folder: str | Path, count: int, *, part: str, seed: int) -> Any:
        """See :func:`fewer.tasks.classify.inputs.images`."""
        from fewer.tasks.classify.inputs import images

        return images(loaded, folder, count, part=part, seed=seed)

    def judges(self, loaded: LoadedModel, folder: str | Path) -> bool:
        """Any model that gives a score per class, on a labelled set of images."""
        from fewer.tasks.classify.model import output_count
        from fewer.tasks.classify.readers import DEEP, format_of

        found = format_of(folder)
        # photos of a year, in folders by month, are laid out as classes whose images lie deeper
        return found not in ("", DEEP) and output_count(loaded) > 0

    def quality(self, loaded: LoadedModel, folder: str | Path) -> Accuracy:
        """See :func:`fewer.tasks.classify.evaluate.quality`."""
        from fewer.tasks.classify.evaluate import quality

        return quality(loaded, folder)
