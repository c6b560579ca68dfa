"""Adapt a segmentation to an unlabelled target: from two folders to a run folder that every other verb reads."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import Any

from torch import Tensor, nn

from fewer.adaptation.choice import unlearned
from fewer.adaptation.methods import METHODS
from fewer.adaptation.ours import member_steps
from fewer.adaptation.problem import Adapted, Pair, Problem, Work
from fewer.adaptation.translate.slices import slice_axis
from fewer.core.errors import FewerError
from fewer.core.files import atomic_write_text, real_path
from fewer.core.progress import Progress, Silent
from fewer.core.run import RunFolder
from fewer.models.artefact import save_artefact
from fewer.tasks.runs import Order, Training, carry_out, plain_settings, write_report
from fewer.tasks.segment.adapt_data import Domains, open_domains
from fewer.tasks.segment.adapt_network import TargetFirst, check_translatable, source_of
from fewer.tasks.segment.adapt_settings import AdaptSettings
from fewer.tasks.segment.adapted import AdaptedRun, AdaptPlan
from fewer.tasks.segment.dataset import SegmentData, open_data
from fewer.tasks.segment.files import read_picture
from fewer.tasks.segment.inference import predict_logits
from fewer.tasks.segment.losses import ScaledLoss, named_loss
from fewer.tasks.segment.memory import check_memory, estimate_memory
from fewer.tasks.segment.networks import build_network, check_network, scales
from fewer.tasks.segment.nnunet import write_nnunet
from fewer.tasks.segment.reading import read_case
from fewer.tasks.segment.sampling import BalancedSampler, HeldStore
from fewer.tasks.segment.scoring import evaluate_cases, with_classes
from fewer.tasks.segment.training import start_from
from fewer.training.callbacks import history_file
from fewer.training.checkpoint import work_key
from fewer.training.devices import check_device, make_accelerator

__all__ = ["adapt", "make_problem", "plan_adapt"]

STAGED = ("ours", "contrasts", "self-training", "ms-mt")
"""Methods whose stages are parts of a number of steps; a time would have to be divided otherwise."""


def plan_adapt(source: str | Path, target: str | Path, settings: AdaptSettings | None = None) -> AdaptPlan:
    """Look at both domains, build the network and estimate the memory, without training.

    Raises
    ------
    FewerError
        When the domains do not fit each other, or the memory does not suffice.
    """
    settings = settings or AdaptSettings()
    METHODS[settings.method]
    settings = settings.of_method()
    if unused := settings.unused():
        raise FewerError(f"an adaptation takes no {', no '.join(unused)}")
    if settings.time is not None and settings.method in STAGED:
        raise FewerError(f"the method {settings.method} trains in stages that share --steps; give these, not --time")
    domains = open_domains(source, target, settings)
    p = domains.preparation
    settings, told = _seen_slices(settings, p.dims)
    domains = replace(domains, notes=(*domains.notes, *told))
    first = read_picture(domains.source[0].images[0])
    if settings.augment == "auto":
        settings = settings.model_copy(update={"augment": "upright" if first.spaced else "light"})
    network = build_network(settings, p.dims, p.channels, len(p.classes))
    check_network(network.model, network.name, p.channels, len(p.classes), p.patch)
    if settings.method in ("le-uda", "mt-uda") and settings.uses("translation"):
        check_translatable(network.source)  # told before the work, not after it
    if settings.init is not None and (told := start_from(network.model, settings, p)):
        domains = replace(domains, notes=(*domains.notes, told))
    held = domains.voxels * (4 * p.channels + 1)
    copies = {"ms-mt": 2, "mt-uda": 3, "le-uda": 3}.get(settings.method, 1)
    # student and teacher pass through one after the other; the teacher keeps no activations
    shape = (2 * settings.batch, p.channels, *p.patch)
    # each stage of the default leaves its network and its best weights
    moments = 3 + 2 * len(member_steps(settings)) * (settings.method == "ours")
    memory = estimate_memory(network.model, shape, len(p.classes), cases=copies * held, moments=moments)
    return AdaptPlan(domains, network, settings, check_memory(memory))


def _seen_slices(settings: AdaptSettings, dims: int) -> tuple[AdaptSettings, list[str]]:
    """One slice at a time where a translator cannot see more, and what to say then."""
    if settings.translator_slices == 1 or settings.method not in ("ms-mt", "mt-uda", "le-uda"):
        return settings, []
    if dims == 3 and settings.method == "ms-mt":
        return settings, []
    why = "images have no neighbouring slices" if dims == 2 else f"the translators of {settings.method} are 2-D"
    return settings.model_copy(update={"translator_slices": 1}), [f"{why}: --translator-slices changes nothing"]


def make_problem(plan: AdaptPlan) -> Problem:
    """What a method is given, from the plan: all images are read and prepared here."""
    d, p, settings = plan.domains, plan.domains.preparation, plan.settings

    def pair(data: SegmentData, case: Any) -> Pair:
        return p.sample(read_case(data, case, p.channels))

    def sampler(pairs: Sequence[Pair], stream: int) -> Callable[[int], tuple[Tensor, Tensor]]:
        return BalancedSampler(HeldStore(pairs, p), settings, stream=stream).batch

    loss = named_loss(settings.loss)
    layers = getattr(plan.network.model, "upsamples", None)
    taps = (f"upsamples.{len(layers) - 1}", f"upsamples.{len(layers) - 2}") if layers and len(layers) > 1 else ()
    return Problem(
        network=plan.network.model,
        dims=p.dims,
        classes=p.classes,
        source=[pair(d.data, case) for case in d.source],
        held=[pair(d.data, case) for case in d.held],
        target=[pair(d.target_data, case)[0] for case in d.target],
        sampler=sampler,
        loss=lambda outputs, masks, weights: ScaledLoss(loss, weights)(outputs, masks),
        scales=lambda output: scales(output, p.dims),
        weights=settings.scale_weights,
        logits=lambda model, image: predict_logits(model, image, p.patch, len(p.classes), 0.25).cpu(),
        unlabelled=[pair(d.data, case)[0] for case in d.unlabelled],
        answers=[pair(d.target_data, case) for case in d.answers],
        taps=taps,
        # light and full mirror along every axis
        mirror={"none": None, "upright": p.mirror}.get(settings.augment, 0),
        measured=d.measured,
    )


def adapt(
    source: str | Path,
    target: str | Path,
    *,
    out: str | Path | None = None,
    settings: AdaptSettings | None = None,
    test: str | Path | None = None,
    overwrite: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
    tell: Callable[[str], None] | None = None,
    command: str = "",
) -> AdaptedRun:
    """Train a network on a labelled source so that it segments an unlabelled target.

    Parameters
    ----------
    source
        A folder with masks, or a raw folder of nnU-Net.
    target
        A folder of images; masks in it are ignored and that is said.
    out
        Run folder, which ``predict``, ``eval`` and ``compress`` read like that of a training.
    test
        A labelled folder of the target domain that is scored at the very end, and never before.

    Raises
    ------
    FewerError
        When data, settings or memory do not suffice.

    Examples
    --------
    >>> run = adapt("t1/", "flair/", out="run/", settings=AdaptSettings(method="ms-mt"))  # doctest: +SKIP
    """
    settings, progress = settings or AdaptSettings(), progress or Silent()
    check_device(settings)
    began = perf_counter()
    judged = open_data(test) if test is not None else None
    problem_of = cache(make_problem)  # the page shows images of it, which are read once

    def fit(plan: AdaptPlan, scratch: Path | None) -> AdaptedRun:
        if judged is not None:
            _check_test(judged, plan)
        result = _adapt(problem_of(plan), plan, scratch, progress, tell or (lambda line: None))
        if judged is not None:
            preparation = plan.domains.preparation
            result.evaluation = evaluate_cases(result.model, judged, judged.cases, preparation, progress=progress)
            # the choice is made; what it left out is scored too, so that everyone sees whether it was right
            for member in result.adapted.members:
                own = result.evaluation
                if not member.kept or result.adapted.steps_after_choice:
                    own = evaluate_cases(member.model.cpu().eval(), judged, judged.cases, preparation)
                result.members[member.name] = own
        result.seconds = perf_counter() - began
        return result

    training = Training(
        "segment",
        lambda: plan_adapt(source, target, settings),
        lambda plan: {"source": str(source), "target": str(target)},
        fit,
        lambda run, plan, result: _save(run, result, problem_of(plan), judged, command),
        what="adaptation",
    )
    return carry_out(training, settings, Order(out, overwrite, resume, tell, command))


def _check_test(judged: SegmentData, plan: AdaptPlan) -> None:
    """Read every test scan once, so that a mistake is told before the training and not after it."""
    preparation = plan.domains.preparation
    if not judged.cases:
        raise FewerError(f"the test folder {judged.root} has no masks: there is nothing to compare with")
    known = with_classes(judged, preparation)
    for case in known.cases:
        preparation.sample(read_case(known, case, preparation.channels))


def _adapt(
    problem: Problem, plan: AdaptPlan, scratch: Path | None, progress: Progress, tell: Callable[[str], None]
) -> AdaptedRun:
    domains, settings = plan.domains, plan.settings
    key = work_key(
        settings.model_dump(exclude={"cache", "device"}),
        domains.preparation.to_dict(),
        [case.name for case in (*domains.source, *domains.target)],
    )
    work = Work(scratch, key, make_accelerator(settings), progress, tell, list(domains.notes))
    _tell_blank(problem, domains, work)
    problem.network.to(work.accelerator.device)
    adapted = METHODS[settings.method].run(problem, settings, work)
    if settings.method != "target-oracle" and (missing := unlearned(problem, adapted.model)):
        work.say(
            f"the network finds next to nothing of {', '.join(missing)} even in source scans that judge it, so that it "
            "cannot be expected to in the target: give more --steps"
        )
    return AdaptedRun(_whole(adapted, problem).cpu().eval(), plan, adapted, None, work.notes)


def _tell_blank(problem: Problem, domains: Domains, work: Work) -> None:
    """Name the scans in which nothing can be seen; where a whole domain is of that kind, there is nothing to learn."""
    for what, images, cases in (
        ("source", [image for image, _ in problem.source], domains.source),
        ("target", problem.target, domains.target),
    ):
        blank = [case.name for case, image in zip(cases, images, strict=True) if bool(image.amin() == image.amax())]
        if blank and len(blank) == len(images):
            raise FewerError(f"every {what} scan has one value everywhere; look at the files, fewer doctor names them")
        if blank:
            shown = ", ".join(blank[:3]) + (", ..." if len(blank) > 3 else "")
            work.say(f"{len(blank)} of {len(images)} {what} scans have one value everywhere and teach nothing: {shown}")


def _whole(adapted: Adapted, problem: Problem) -> nn.Module:
    """The network, behind its translator where target images must be given the source's look first."""
    if adapted.translator is None:
        return adapted.model
    axes = Counter(slice_axis(image) for image in problem.target) if problem.dims == 3 else None
    return TargetFirst(adapted.translator, adapted.model, axes.most_common(1)[0][0] if axes else None)


def _save(run: RunFolder, result: AdaptedRun, problem: Problem, judged: SegmentData | None, command: str) -> None:
    from fewer.tasks.segment.adapt_members import members_csv
    from fewer.tasks.segment.adapt_page import adapt_page

    plan = result.plan
    d, p = plan.domains, plan.domains.preparation
    # scans of the target have trained, if without masks: an evaluation on this very folder says so
    split = {"data": str(real_path(d.target_data.root)), "train": [c.name for c in d.target], "val": []}
    facts = {"preparation": p.to_dict(), "settings": plain_settings(plan.settings), "split": split}
    meta = {"task": "segment", "segment": facts, "model": plan.network.name, "input_size": [p.channels, *p.patch]}
    source = source_of(result.model, plan.network.source)
    save_artefact(run.path, result.model, [], source, meta, preprocess=p.preprocess())
    page = adapt_page(result, problem, judged, command)
    write_report(run, page)
    for name, stage in result.adapted.stages.items():
        atomic_write_text(run.path / history_file(name), stage.history.to_csv())
    if result.evaluation is not None:
        atomic_write_text(run.path / "evaluation.csv", result.evaluation.to_csv())
    if result.adapted.members:
        atomic_write_text(run.path / "members.csv", members_csv(result))
    if result.adapted.checks:
        atomic_write_text(run.path / "translator.json", json.dumps(result.adapted.checks, indent=1) + "\n")
    if len(result.adapted.translated):
        _write_translated(run.path / "translated", plan, result.adapted.translated)


def _write_translated(folder: Path, plan: AdaptPlan, images: Sequence[Tensor]) -> None:
    """Translated source scans with their masks as a raw folder of nnU-Net, on the voxels of the originals."""
    from fewer.tasks.segment.files import suffix_of

    def cases() -> Any:
        for case, image in zip(plan.domains.source, images, strict=True):
            sample = read_case(plan.domains.data, case)
            back = plan.domains.preparation.back(image, sample.picture).numpy().astype("float32")
            yield case.name, replace(sample.picture, array=back), sample.mask

    first = suffix_of(plan.domains.source[0].images[0])
    suffix = ".nii.gz" if first in (".nii", ".nii.gz") else ".tif"  # floats fit into no PNG
    classes = {name: index for index, name in enumerate(plan.domains.preparation.classes)}
    channels = [f"translated {index}" for index in range(plan.domains.preparation.channels)]
    shutil.rmtree(folder, ignore_errors=True)
    write_nnunet(folder, cases(), classes=classes, channels=channels, suffix=suffix)
