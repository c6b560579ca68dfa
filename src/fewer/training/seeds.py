"""Random numbers of a step that depend on the seed and the number of the step alone."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

__all__ = ["caller_random", "seed_step"]


def seed_step(seed: int, step: int) -> None:
    """Set the global generators of torch, numpy and Python for one step.

    Examples
    --------
    >>> seed_step(0, 7)
    >>> first = torch.rand(1)
    >>> seed_step(0, 7)
    >>> bool(torch.rand(1) == first)
    True
    """
    number = seed * 1_000_003 + step
    torch.manual_seed(number)
    np.random.seed(number % 2**32)  # noqa: NPY002 (libraries that augment images draw from the global generator)
    random.seed(number)


@contextmanager
def caller_random() -> Iterator[None]:
    """Leave the global generators as they were found."""
    here = np.random.get_state(), random.getstate()  # noqa: NPY002
    with torch.random.fork_rng():
        try:
            yield
        finally:
            np.random.set_state(here[0])  # noqa: NPY002
            random.setstate(here[1])
