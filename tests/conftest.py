"""What must hold after every test, so that no test decides how the next one ends."""

import gc
import os
import random
import signal
import subprocess
import sys
from collections.abc import Generator, Iterator

import numpy as np
import pytest
import torch


def pytest_configure() -> None:
    """Let Ctrl-C arrive: a shell that starts a job in the background has it ignored, by its children too.

    And work in one thread, as every test begins.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)


_SEED = 67_280_421_310_721  # that of torch in a process that nobody has seeded


def _as_in_a_fresh_process() -> None:
    """Random numbers as a test would meet them if it ran alone."""
    torch.default_generator.manual_seed(_SEED)  # not torch.manual_seed, which remembers a trace for every device
    np.random.seed(0)  # noqa: NPY002
    random.seed(0)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """For the fixtures that tests share, whichever test asks for them first."""
    del item
    _as_in_a_fresh_process()


@pytest.fixture(autouse=True)
def _alike_in_any_order() -> Iterator[None]:
    """A test starts with the same random numbers, threads and kind of numbers, whatever ran before it.

    One thread: sums over several round otherwise, and where one test left one thread, those after it saw other sums.
    """
    kind = torch.get_default_dtype()
    _as_in_a_fresh_process()
    yield
    torch.set_num_threads(1)
    left_kind = torch.get_default_dtype()
    torch.set_default_dtype(kind)
    assert left_kind is kind, "this test left another kind of numbers for the tests after it"


def pytest_collection_finish() -> None:
    """Leave what was imported to collect the tests out of garbage collection.

    Every training ends with one, over all objects of the process: a quarter of a second with torch and its libraries,
    which is more than most trainings here take.
    """
    gc.freeze()
    _LOADED[0] = len(sys.modules)


_LOADED = [0]
_MANY = 50
"""Modules that tests have imported since objects were last left out, and how many are worth doing it again."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, object, object]:
    """Leave out as well what the tests of a file imported on their way, once its fixtures are gone.

    onnx, OpenVINO, scikit-learn and the compiler of torch bring 250,000 objects; with them, every training after it
    cost another quarter of a second.
    """
    done = yield
    if nextitem is not None and nextitem.path != item.path and len(sys.modules) > _LOADED[0] + _MANY:
        gc.collect()  # first, as what is left out is never freed
        gc.freeze()
        _LOADED[0] = len(sys.modules)
    return done


def pytest_unconfigure() -> None:
    """Let everything be collected again, so that libraries find nothing left over when Python ends."""
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _named(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """What a test names as a model is not remembered for the user, and what it times is none of the user's timings."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
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
