"""How the networks of ``small_networks.py`` and ``odd_networks.py`` are trained, and read again."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from odd_networks import DENSE, ODD
from small_networks import PREPROCESS, SMALL
from torch import Tensor, nn

from fewer.data.preprocess import Preprocess
from fewer.models.spec import LoadedModel, load_model


def edges(x: Tensor) -> Tensor:
    """What a dense output is taught: differences of grey in two directions, and the mean of a neighbourhood."""
    grey = x.mean(1, keepdim=True)
    return torch.cat([grey - grey.roll(1, 2), grey - grey.roll(1, 3), F.avg_pool2d(grey, 3, 1, 1)], 1)


def loss_of(name: str, model: nn.Module, proxies: Tensor, x: Tensor, labels: Tensor) -> Tensor:
    """What a network is trained for."""
    out = model(x)
    if name == "unet":
        return F.smooth_l1_loss(out, edges(x))
    if name == "embed":
        return F.cross_entropy(12 * out @ F.normalize(proxies, dim=1).T, labels)
    if name == "two":
        return F.cross_entropy(out[0], labels) + 3 * F.mse_loss(out[1], F.avg_pool2d(edges(x)[:, :2].abs(), 2))
    if name in DENSE:
        return F.smooth_l1_loss(out, x)
    if name == "queries":
        return F.cross_entropy(out[0].mean(1), labels) + F.mse_loss(out[1].mean((1, 2)), x.mean((1, 2, 3)).sigmoid())
    return F.cross_entropy(out, labels)


def train(name: str, images: Tensor, labels: Tensor, seconds: float) -> nn.Module:
    """Train a network for so many seconds of processor time."""
    torch.manual_seed(0)
    model = (SMALL | ODD)[name]().train()
    proxies = nn.Parameter(torch.randn(10, 64))
    rate, began, step = 2e-3, time.process_time(), 0
    optimiser = torch.optim.AdamW([*model.parameters(), proxies], rate, weight_decay=0.02)
    while (spent := time.process_time() - began) < seconds:
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1, (step + 1) / 50) * 0.5 * (1 + np.cos(np.pi * min(1, spent / seconds)))
        chosen = torch.randint(len(images), (64,))
        x = images[chosen].flip(3) if torch.rand(()) < 0.5 else images[chosen]
        optimiser.zero_grad()
        loss_of(name, model, proxies, x, labels[chosen]).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        step += 1
    return model.eval()


def small_network(
    name: str, weights: Path, teach: Callable[[], tuple[Tensor, Tensor]], seconds: float = 40.0
) -> LoadedModel:
    """A trained network; its weights are kept in a folder, and it is trained where they are not there."""
    file = weights / f"{name}.pt"
    if not file.exists():
        weights.mkdir(parents=True, exist_ok=True)
        torch.save(train(name, *teach(), seconds).state_dict(), file)
    model = (SMALL | ODD)[name]()
    model.load_state_dict(torch.load(file, weights_only=True))
    return replace(load_model(model.eval()), preprocess=Preprocess.of(PREPROCESS, name), name=name, assumed=False)
