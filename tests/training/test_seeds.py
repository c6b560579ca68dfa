"""Random numbers of a step follow from the seed and its number."""

import random

import numpy as np
import torch

from fewer.training.seeds import caller_random, seed_step


def _draw() -> tuple[float, float, float]:
    return float(torch.rand(1)), float(np.random.rand()), random.random()  # noqa: NPY002


def test_a_step_has_its_own_numbers() -> None:
    found = {}
    for seed, step in ((0, 1), (0, 2), (1, 1), (0, 1)):
        seed_step(seed, step)
        drawn = _draw()
        assert found.setdefault((seed, step), drawn) == drawn
    assert len(set(found.values())) == 3
    seed_step(10**9, 5)  # beyond what numpy takes


def test_the_caller_draws_on_as_if_nothing_had_been() -> None:
    seed_step(3, 3)
    wanted = _draw()
    seed_step(3, 3)
    with caller_random():
        seed_step(9, 9)
        _draw()
    assert _draw() == wanted
