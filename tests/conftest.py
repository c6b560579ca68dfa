"""What must hold after every test, so that no test decides how the next one ends."""

import gc
from collections.abc import Iterator

import pytest
import torch


def pytest_collection_finish() -> None:
    """Leave what was imported to collect the tests out of garbage collection.

    Every training ends with one, over all objects of the process: a quarter of a second with torch and its libraries,
    which is more than most trainings here take.
    """
    gc.freeze()


@pytest.fixture(autouse=True)
def _gradients_stay_on() -> Iterator[None]:
    yield
    left_on = torch.is_grad_enabled()
    torch.set_grad_enabled(True)
    assert left_on, "this test left gradients switched off for the tests after it"
