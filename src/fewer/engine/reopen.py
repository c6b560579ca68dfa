"""A finished run, opened again with its dense model and its images, to be worked on further."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from fewer.core.errors import FewerError
from fewer.core.plan import Plan
from fewer.core.run import RunFolder
from fewer.engine.as_used import input_rounding
from fewer.engine.deploy import measured_here
from fewer.engine.judge import Judge
from fewer.engine.judge import Quality as Likeness
from fewer.engine.prepare import Prepared, on_device, prepare
from fewer.engine.quality import QualityLike, quality_of
from fewer.engine.runtimes import deploy_example
from fewer.engine.settings import Settings
from fewer.engine.views import Views, views_of
from fewer.engine.work import Work
from fewer.engine.worst import worst_images
from fewer.kernels.accelerate import accelerate
from fewer.kernels.copies import copied_module
from fewer.models.artefact import load_artefact, load_masks, load_recipe, state_hash
from fewer.models.choices import share_choices
from fewer.models.recipe import Recipe, precisions_of, refuse_integers
from fewer.models.reorder import read_reorderings
from fewer.models.running import Forward, forms_of, put_samples_first, use_threads
from fewer.models.spec import load_named
from fewer.reports import RunReport
from fewer.tasks import Quality

__all__ = ["Measured", "OpenRun", "check_finished", "open_run"]


@dataclass(frozen=True)
class Measured:
    """What a model was worth: on all held-out images, on those that choose nothing, on labelled data, and at worst."""

    whole: Likeness
    clean: Likeness
    labelled: dict[str, float]
    worst: list[dict[str, Any]]


@dataclass(eq=False)
class OpenRun:
    """A run that is open for recovery."""

    settings: Settings
    prepared: Prepared
    plan: Plan
    recipe: Recipe
    report: RunReport
    student: nn.Module
    masks: dict[str, Tensor]
    views: Views
    kernels: bool  # whether the model is used on kernels that round activations, as timed on this machine
    quality: Quality | None
    judge: Judge = field(init=False)

    def used(self) -> nn.Module:
        """The model as it will be used: on its kernels where the plan is one for time, else with what is rounded."""
        if not self.kernels:
            return self._rounding(self.student)
        example = deploy_example(Work(self.prepared, self.settings))
        with use_threads(self.settings.threads):
            return accelerate(
                self.student, self.masks, example=example, precision=precisions_of(self.recipe), budget_ms=20.0
            )[0]

    def _rounding(self, model: nn.Module) -> nn.Module:
        rounding = input_rounding(Work(self.prepared, self.settings))
        if rounding is None:
            return model
        aliases = {unit.name: unit.aliases for unit in self.prepared.matched.units}
        return rounding.copy(model, precisions_of(self.recipe), aliases)

    def measure(self) -> Measured:
        """Output error and likeness on held-out images, and quality on labelled data where there is some."""
        used = self.used()
        judging = self.views.judges
        parts = slice(None), judging if bool(judging.any()) else slice(None)
        (whole, clean), changes = self.judge.judge_each(used, *parts)
        labelled = dict(self.quality(used)) if self.quality is not None else {}
        return Measured(whole, clean, labelled, worst_images(self.prepared, self.judge, used, changes))


def check_finished(source: RunFolder) -> None:
    """Raise a :class:`FewerError` that says what a run lacks, if it holds no compressed model with its report."""
    lacking = [name for name in ("config", "curves", "plan", "model", "recipe", "report_json") if not source.has(name)]
    if not lacking:
        return
    if "model" in lacking and "curves" not in lacking and "config" not in lacking:
        raise FewerError(f"{source.path} holds no compressed model yet; make one with: fewer apply {source.path}")
    names = ", ".join(source.file(name).name for name in lacking)
    raise FewerError(f"{source.path} is no finished run of fewer compress: it has no {names}")


def open_run(
    source: RunFolder,
    model: Any,
    images: Any,
    forward: Forward | None,
    quality: QualityLike,
    seed: int | None,
    device: str | None = None,
) -> OpenRun:
    """Load a run's model, and its dense twin and images from where its settings say they are.

    Parameters
    ----------
    source
        A finished run.
    model, images
        Where they were Python objects, or others are wanted.
    forward, quality
        As for :func:`fewer.compress`.
    seed
        Of the views; by default that of the run.
    device
        Where the work is done; by default that of the run.

    Raises
    ------
    FewerError
        When model or images are missing, are not those of the run, or are too few.
    """
    config, curves = source.read_config(), source.read_curves()
    settings = Settings.of_run(config.get("settings", {}), str(source.file("config")))
    if images is None:
        images = config.get("images")
    if images is None:
        how = "without images" if settings.data_free is not None else "with images given in Python"
        raise FewerError(f"{source.path} was made {how}; give a folder of images with --images, in Python images=")
    changes = {"data_free": None} | ({} if device is None else {"device": device})
    settings = settings.model_copy(update=changes)
    prepared = prepare(
        model if model is not None else _named_model(config, source),
        images,
        settings,
        forward,
        read_reorderings(curves.meta.get("reorderings", ())),
    )
    if state_hash(prepared.model) != curves.meta.get("state"):
        raise FewerError(
            f"the model {prepared.loaded.name} is not the one that {source.path} was made from "
            f"({curves.meta.get('model')}); give that one, with the weights that it had"
        )
    recipe, plan = load_recipe(source.path), source.read_plan()
    refuse_integers(recipe, source.path, "they have no gradient to train with; recover a run without them")
    plan.choice(curves)
    bare = (lambda: copied_module(prepared.model)) if recipe.source.get("kind") == "object" else None
    student = share_choices(on_device(load_artefact(source.path, bare), settings.device), prepared.model)
    put_samples_first(student, forms_of(prepared.model))  # the two are compared
    report = RunReport.from_json(source.read_text("report_json"))
    masks = _all_masks(source, recipe, student)
    views = views_of(prepared, images, settings.seed if seed is None else seed)
    labelled = quality if quality is not None else config.get("labelled")
    return OpenRun(
        settings,
        prepared,
        plan,
        recipe,
        report,
        student,
        masks,
        views,
        settings.device == "cpu" and "latency" in plan.cost and measured_here(curves),
        quality_of(prepared.loaded, labelled),
    )


def _named_model(config: Mapping[str, Any], source: RunFolder) -> Any:
    value = config.get("model")
    if not isinstance(value, str) or (":" in value and ".py:" not in value):
        raise FewerError(f"{source.path} was made from a Python object ({value}); give the model again, as model=")
    return load_named(value, str(source.file("config")))


def _all_masks(source: RunFolder, recipe: Recipe, student: nn.Module) -> dict[str, Tensor]:
    stored = load_masks(source.path)
    masks: dict[str, Tensor] = {}
    for unit in recipe.units:
        weight: Any = student.get_submodule(unit.name).weight
        masks[unit.name] = (
            stored[unit.name].to(weight.device) if unit.name in stored else weight.new_ones(weight.shape).bool()
        )
    return masks
