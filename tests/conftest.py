"""What must hold after every test, so that no test decides how the next one ends."""

import gc
import os
import signal
import subprocess
import sys
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


def pytest_unconfigure() -> None:
    """Let everything be collected again, so that libraries find nothing left over when Python ends."""
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _named(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """What a test names as a model is not remembered for the user."""
    place = tmp_path_factory.getbasetemp() / "named-files"
    monkeypatch.setattr("fewer.models.trust.named_files", lambda: place)


_APART = "FEWER_TEST_APART"


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run what is marked ``apart`` or ``cluster`` in a process of its own.

    Ray and signals change a process for good: its threads, its handlers and the stack that handlers run on.
    """
    marked = any(pyfuncitem.get_closest_marker(name) for name in ("apart", "cluster"))
    if not marked or _APART in os.environ:
        return None
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", pyfuncitem.nodeid]
    done = subprocess.run(
        command,
        cwd=pyfuncitem.config.rootpath,
        env={**os.environ, _APART: "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    if done.returncode:
        pytest.fail(
            f"in a process of its own (exit code {done.returncode}):\n{done.stdout}{done.stderr}", pytrace=False
        )
    if "1 skipped" in done.stdout:
        pytest.skip(next(line for line in done.stdout.splitlines() if line.startswith("SKIPPED")))
    return True


@pytest.fixture(autouse=True)
def _gradients_stay_on() -> Iterator[None]:
    yield
    left_on = torch.is_grad_enabled()
    torch.set_grad_enabled(True)
    assert left_on, "this test left gradients switched off for the tests after it"
