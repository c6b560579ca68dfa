"""What must hold after every test, so that no test decides how the next one ends."""

import gc
import signal
from collections.abc import Iterator

import pytest
import torch


def pytest_configure() -> None:
    """Let Ctrl-C arrive: a shell that starts a job in the background has it ignored, by its children too."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


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
