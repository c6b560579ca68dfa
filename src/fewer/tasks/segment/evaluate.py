"""Evaluate a trained run, or a folder of masks; and the quality that a compression shows before and after."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from fewer.core.errors import FewerError
from fewer.core.progress import Progress
from fewer.core.staging import write_together
from fewer.models.spec import LoadedModel, load_model
from fewer.tasks.folders import check_out, device_of, make_folder
from fewer.tasks.segment.dataset import Case, SegmentData, open_data
from fewer.tasks.segment.evaluation import Evaluation
from fewer.tasks.segment.inference import predict_mask
from fewer.tasks.segment.loaded import preparation_of, unseen_cases
from fewer.tasks.segment.pages import evaluation_page, examples
from fewer.tasks.segment.preparation import Preparation
from fewer.tasks.segment.scoring import evaluate_cases, evaluate_folder
from fewer.tasks.segment.settings import EvaluateSettings

__all__ = ["Labelled", "evaluate", "quality"]


def evaluate(
    target: str | Path,
    data: str | Path,
    *,
    out: str | Path | None = None,
    settings: EvaluateSettings | None = None,
    overwrite: bool = False,
    device: str = "cpu",
    progress: Progress | None = None,
    command: str = "",
) -> Evaluation:
    """Score a trained run, or a folder of predicted masks, on annotated cases.

    Parameters
    ----------
    target
        Run folder (of a training, or of a compression of one), or a folder of masks called like their cases.
    data
        Data set. If the run was trained on it, only the cases that did not train are scored.
    out
        Folder for ``evaluation.json``, ``evaluation.csv`` and ``evaluation.html``.
    settings
        See :class:`~fewer.tasks.segment.settings.EvaluateSettings`.
    overwrite
        Replace these files.
    device
        Where the network runs.

    Raises
    ------
    FewerError
        When target and data do not fit each other.
    """
    found, opened = Path(target), open_data(data)
    check_out(out, ("evaluation.json",), overwrite)
    if not found.is_dir():
        raise FewerError(f"{target} does not exist; give a run folder, or a folder of predicted masks")
    gallery = None
    if (found / "recipe.json").is_file():
        loaded = load_model(str(target))
        preparation, model = preparation_of(loaded), loaded.model.to(device_of(device))
        cases = opened.cases if (settings or EvaluateSettings()).all_data else unseen_cases(loaded, opened)
        if not cases:
            raise FewerError(f"every case of {data} has trained {target}; give other data, or --all-data")
        result = evaluate_cases(model, opened, cases, preparation, progress=progress)
        if out is not None:
            names = [case.name for case in cases]
            gallery = examples(opened, names, result, lambda sample: predict_mask(model, sample, preparation))
    else:
        result = evaluate_folder(target, opened, progress=progress)
    if out is not None:
        page = evaluation_page(f"{found.name} on {opened.root.name}", result, gallery, command)
        folder = make_folder(out)
        texts = {".csv": result.to_csv(), ".html": page.to_html(), ".json": result.to_json()}
        write_together(folder, {f"evaluation{suffix}": text for suffix, text in texts.items()})
    return result


@dataclass(frozen=True)
class Labelled:
    """The quality of a segmentation; see :class:`fewer.tasks.Quality`."""

    data: SegmentData
    cases: tuple[Case, ...]
    preparation: Preparation
    note: str
    lower_is_better: frozenset[str]

    def __call__(self, model: nn.Module) -> Mapping[str, float]:
        """Evaluate a model."""
        return evaluate_cases(model, self.data, self.cases, self.preparation).measures()


def quality(loaded: LoadedModel, folder: str | Path) -> Labelled:
    """How good models of this kind are on the annotated cases of a folder, without those that trained.

    Raises
    ------
    FewerError
        When the folder is no data set, or has no annotated case.
    """
    data = open_data(folder)
    cases = unseen_cases(loaded, data)
    if not cases:
        raise FewerError(f"{folder} has no annotated case that {loaded.name} was not trained on; give other data")
    lower = {"missed structures", "spurious structures", "HD95, found (mm)", "HD95, found (pixels)"}
    return Labelled(data, cases, preparation_of(loaded), f"on {len(cases)} annotated cases", frozenset(lower))
