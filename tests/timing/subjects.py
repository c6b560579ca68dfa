"""Tiny models of the bench's tests, in a file of their own so that a timing process can import them."""

from __future__ import annotations

import os
import time

import torch
from torch import Tensor, nn


def tiny_net() -> nn.Module:
    """A convolution, a normalisation and a linear layer; the same weights each time."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    ).eval()


class Limits:
    """Answers with the limits of the process it runs in: torch's threads, usable CPUs, threads of the environment."""

    def __call__(self, x: Tensor) -> Tensor:
        return torch.tensor(
            [
                float(torch.get_num_threads()),
                float(len(os.sched_getaffinity(0))),
                float(os.environ.get("OMP_NUM_THREADS", -1)),
                float(os.getpid()),
            ]
        )


class Sleeper(nn.Module):
    """Takes its time, without using the CPU."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def forward(self, x: Tensor) -> Tensor:
        time.sleep(self.seconds)
        return x.clone()


class Broken(nn.Module):
    """Raises when it is called."""

    def forward(self, x: Tensor) -> Tensor:
        raise ValueError("the layer is broken")


class Dying(nn.Module):
    """Ends its process the hard way, but only in another process than the one that made it."""

    def __init__(self) -> None:
        super().__init__()
        self.home = os.getpid()

    def forward(self, x: Tensor) -> Tensor:
        if os.getpid() != self.home:
            os._exit(3)
        raise ValueError("still at home")


class Nested(nn.Module):
    """A block with children and work of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(16, 32), nn.Linear(32, 16)])
        self.conv = nn.Conv1d(4, 8, 3, groups=2)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        for block in self.blocks:
            x = block(x)
        end = time.thread_time() + 0.003  # work, not sleep: one thread's layers are timed by its CPU time
        while time.thread_time() < end:
            pass
        return {"sequence": x, "conv": self.conv(x)}
