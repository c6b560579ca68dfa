"""Self-supervised warm-up: a network sees the images before it sees a label, by restoration or by contrast."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewer.core.errors import FewerError
from fewer.core.progress import Progress, Silent
from fewer.models.artefact import save_artefact
from fewer.models.build import Source
from fewer.models.monai import import_monai
from fewer.models.spec import load_model
from fewer.tasks.facts import facts_of
from fewer.tasks.segment.bottleneck import Embedder, find_bottleneck
from fewer.tasks.segment.corrupt import corruption
from fewer.tasks.segment.dataset import Case, SegmentData
from fewer.tasks.segment.networks import build_network, scales
from fewer.tasks.segment.preparation import Preparation, fit_preparation
from fewer.tasks.segment.sampling import CaseStore, PatchSampler
from fewer.tasks.segment.settings import TrainSettings
from fewer.training.checkpoint import Checkpoint, work_key
from fewer.training.loop import Special, fit, make_accelerator

__all__ = ["WARM", "WarmNetwork", "transfer", "warm_network", "warm_up"]

WARM = "warm_up"
"""What the recipe of a warmed-up network is marked with."""
STREAM = 1
"""Keeps the draws of the warm-up apart from those of the training."""
TEMPERATURE = 0.1
OTHERS = 16
"""Patches of a contrastive step at least, as far as there are images: few others are easily told apart by chance."""


@dataclass(eq=False)
class WarmNetwork:
    """A network that has seen images and no label.

    Attributes
    ----------
    model
        Puts out the channels of the image after restoration.
    preparation
        How an image becomes its input: the same numbers must reach it later.
    source
        Builds the architecture again; see :attr:`fewer.models.spec.LoadedModel.source`.
    history
        ``step`` and ``loss``.
    """

    model: nn.Module
    preparation: Preparation
    source: Source
    history: list[dict[str, float]] = field(default_factory=list)

    def embedder(self, pool: str = "mean+std") -> Embedder:
        """From prepared images ``(batch, channels, *space)`` to vectors (batch, width)."""
        return Embedder(self.model, torch.zeros(1, self.preparation.channels, *self.preparation.patch), pool)

    def save(self, folder: str | Path) -> None:
        """Write ``model.safetensors`` and ``recipe.json``, which a training may start from (``init=``).

        Raises
        ------
        FewerError
            When the disk cannot be written.
        """
        size = [self.preparation.channels, *self.preparation.patch]
        facts = {"preparation": self.preparation.to_dict(), "history": self.history}
        meta = {WARM: facts, "input_size": size}
        save_artefact(folder, self.model, [], self.source, meta, preprocess=self.preparation.preprocess())

    @classmethod
    def load(cls, folder: str | Path) -> WarmNetwork:
        """Read what :meth:`save` wrote.

        Raises
        ------
        FewerError
            When the folder holds no warmed-up network, or a damaged one.
        """
        loaded = load_model(str(folder))
        if WARM not in loaded.meta:
            raise FewerError(f"{folder} holds no network of a warm-up")
        found, facts = facts_of(loaded, WARM), loaded.meta[WARM]
        history = facts.get("history", [])
        if found.preparation is None or not isinstance(history, list) or not all(isinstance(h, dict) for h in history):
            raise FewerError(f"{folder} holds a damaged network of a warm-up; warm it up again")
        return cls(loaded.model, Preparation.of(found.preparation), loaded.source, history)


def warm_network(
    data: SegmentData, settings: TrainSettings, *, progress: Progress | None = None, checkpoint: Path | None = None
) -> WarmNetwork:
    """Warm a network up on all images of a data set, with or without masks, which are not read.

    Parameters
    ----------
    data
        From :func:`~fewer.tasks.segment.dataset.open_data`, or ``image_pool`` for images alone.
    settings
        Network, patch, ``warm_up`` (``none`` counts as ``restoration``), ``warm_up_steps`` and seed.
    progress
        Shows a stage.
    checkpoint
        File to go on from when interrupted.

    Examples
    --------
    >>> warm = warm_network(image_pool(files), TrainSettings(warm_up_steps=200))  # doctest: +SKIP
    >>> warm.embedder()(images).shape  # doctest: +SKIP
    torch.Size([64, 128])
    """
    if settings.warm_up == "none":
        settings = settings.model_copy(update={"warm_up": "restoration"})
    cases = [*data.cases, *data.unlabelled]
    preparation = fit_preparation(data, cases, settings, masks=False)
    network = build_network(settings, preparation.dims, preparation.channels, preparation.channels)
    history = warm_up(
        network.model, data, cases, preparation, settings, make_accelerator(settings),
        progress=progress, checkpoint=checkpoint,
    )  # fmt: skip
    return WarmNetwork(network.model.cpu().eval(), preparation, network.source, history)


def warm_up(
    model: nn.Module,
    data: SegmentData,
    cases: Sequence[Case],
    preparation: Preparation,
    settings: TrainSettings,
    accelerator: Any,
    *,
    progress: Progress | None = None,
    checkpoint: Path | None = None,
) -> list[dict[str, float]]:
    """Warm a network up in place; masks are not read, and the images are prepared as they will be for training.

    Parameters
    ----------
    model
        The segmentation network; layers that do not fit the pretext task (its output) stay as they are.
    data, cases, preparation, settings
        As in training.
    accelerator
        See :func:`fewer.training.loop.make_accelerator`.

    Returns
    -------
    list of dict
        ``step`` and ``loss``.

    Raises
    ------
    FewerError
        When a network of one's own, whose output is fixed, is to be warmed up by restoration.
    """
    store = CaseStore(data, cases, preparation, settings.cache * 2**30, masks=False)
    light = settings.model_copy(update={"foreground": 0.0, "augment": "light"})
    sampler = PatchSampler(store, light, accelerator.process_index, accelerator.num_processes, stream=STREAM)
    kind = settings.warm_up
    key = work_key(settings.model_dump(exclude={"cache", "device"}), preparation.to_dict(), [c.name for c in cases])
    common: dict[str, Any] = {
        "steps": settings.warm_up_steps,
        "name": "warm-up",
        "progress": progress or Silent(),
        "checkpoint": None if checkpoint is None else Checkpoint(checkpoint, key),
        "special": Special(splits=True),
    }
    if kind == "contrastive":
        return _contrast(model, sampler, settings, accelerator, common)
    if ".py" in settings.network:
        raise FewerError("a network of your own cannot be warmed up by restoration; give --warm-up contrastive")
    pretext = build_network(settings, preparation.dims, preparation.channels, preparation.channels).model
    pretext.to(accelerator.device)
    damage = corruption(preparation.patch)

    def objective(net: nn.Module, step: int) -> Tensor:
        clean, _ = sampler.batch(step)
        broken = []
        for number, image in enumerate(clean):
            rng = np.random.default_rng([settings.seed, STREAM + 1, step, sampler.rank, number])
            broken.append(damage(image, rng))
        restored = scales(net(torch.stack(broken).to(accelerator.device)), preparation.dims)[0]
        return F.mse_loss(restored.float(), clean.to(accelerator.device))

    history = fit(pretext, objective, settings, accelerator, **common).history
    transfer(pretext, model, preparation, settings.warm_up_transfer)
    return history


def _contrast(
    model: nn.Module, sampler: PatchSampler, settings: TrainSettings, accelerator: Any, common: dict[str, Any]
) -> list[dict[str, float]]:
    """Two random views of each patch are drawn together, views of different patches apart (NT-Xent)."""
    preparation = sampler.store.preparation
    loss = import_monai("monai.losses").ContrastiveLoss(temperature=TEMPERATURE)
    torch.manual_seed(settings.seed)
    views = _Views(model, torch.zeros(1, preparation.channels, *preparation.patch))
    views.to(accelerator.device)

    def objective(net: nn.Module, step: int) -> Tensor:
        # every patch is of another image, so that no two of one image are drawn apart
        rng = np.random.default_rng([settings.seed, STREAM, step, sampler.rank])
        count = min(max(OTHERS, settings.batch), len(sampler.store))
        cases = rng.permutation(len(sampler.store))[:count]
        images = [sampler.draw(int(case), rng)[0] for case in cases]
        pair = []
        for view in range(2):
            changed = []
            for number, image in enumerate(images):
                rng = np.random.default_rng([settings.seed, STREAM + 2, step, sampler.rank, number, view])
                changed.append(_view(image, rng))
            pair.append(net(torch.stack(changed).to(accelerator.device)))
        return loss(*pair)

    return fit(views, objective, settings, accelerator, **common).history


class _Views(nn.Module):
    def __init__(self, model: nn.Module, example: Tensor) -> None:
        super().__init__()
        self.model = model
        self._embedder = [Embedder(model, example)]  # in a list, so that it is no part of the state
        width = self._embedder[0].width
        self.head = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 64))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self._embedder[0].features(images).float())


def _view(image: Tensor, rng: np.random.Generator) -> Tensor:
    """A random part of a patch at its full size, flipped, with other brightness and some noise."""
    share = rng.uniform(0.5, 1.0)
    inside = [slice(None)]
    for length in image.shape[1:]:
        size = max(2, int(share * length))
        start = int(rng.integers(length - size + 1))
        inside.append(slice(start, start + size))
    mode = "bilinear" if image.ndim == 3 else "trilinear"
    part = F.interpolate(image[tuple(inside)][None], image.shape[1:], mode=mode)[0]
    axes = [axis for axis in range(1, image.ndim) if rng.random() < 0.5]
    part = part.flip(axes) if axes else part
    noise = torch.from_numpy(rng.standard_normal(part.shape).astype(np.float32))
    return part * float(rng.uniform(0.6, 1.4)) + float(rng.normal(0, 0.2)) + 0.05 * noise


def transfer(source: nn.Module, target: nn.Module, preparation: Preparation, what: str = "all") -> list[str]:
    """Copy weights of a warmed-up network.

    Parameters
    ----------
    source, target
        Networks of one architecture that may differ in their outputs.
    preparation
        Gives the size of an example.
    what
        ``all``: every tensor of the same name and shape, which is all but the output layers; ``encoder``: of those, the
        ones that are used up to the bottleneck.

    Returns
    -------
    list of str
        Names of the tensors that were copied.

    Raises
    ------
    FewerError
        When nothing fits.
    """
    state, own = source.state_dict(), target.state_dict()
    names = [name for name, tensor in state.items() if name in own and own[name].shape == tensor.shape]
    if what == "encoder":
        example = torch.zeros(1, preparation.channels, *preparation.patch, device=next(source.parameters()).device)
        encoder = set(find_bottleneck(source, example).encoder)
        names = [name for name in names if name.rpartition(".")[0] in encoder]
    if not names:
        raise FewerError("the warmed-up network shares no layer with the one to be trained")
    target.load_state_dict({name: state[name].cpu() for name in names}, strict=False)
    return names
