"""Finding the library, and forcing an instruction set by the environment."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from fewer.core.errors import FewerError
from fewer.kernels import native


def _run(code: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-W", "always", "-c", code], env={**os.environ, **environment}, capture_output=True, text=True
    )


_LAYER = """
import torch
from fewer.kernels.linear import BlockSparseLinear
layer = BlockSparseLinear.from_dense(torch.nn.Linear(32, 32))
print(layer.backend, tuple(layer(torch.zeros(2, 32)).shape))
"""


def test_the_environment_forces_an_instruction_set(lib, monkeypatch):
    with native.isa(lib.isa):  # restores the choice, which is the library's, not the object's
        monkeypatch.setenv("FEWER_ISA", "portable")
        assert native.Library(lib.path).isa == "portable"
        monkeypatch.setenv("FEWER_ISA", "mmx")
        with pytest.raises(FewerError, match=r"unknown instruction set FEWER_ISA='mmx'.*portable"):
            native.Library(lib.path)


def test_an_instruction_set_the_processor_lacks_is_refused(lib, monkeypatch):
    missing = [name for name, usable in lib.variants().items() if not usable]
    if missing:
        with pytest.raises(FewerError, match="this processor lacks"):
            lib.select(missing[0])
    else:  # every variant runs here, so let the library answer as an older processor would
        monkeypatch.setattr(
            lib,
            "_dll",
            type("Old", (), {"fewer_select": staticmethod(lambda n: 2), "fewer_variant": lib._dll.fewer_variant})(),
        )
        with pytest.raises(FewerError, match="this processor lacks"):
            lib.select("avx512")


def test_without_the_library_the_slow_path_is_used_and_said_once():
    code = "from fewer.kernels import native\nnative._candidates = lambda: []\n" + _LAYER + "native.load()\n"
    done = _run(code)
    assert done.stdout.strip() == "gather (2, 32)", done.stderr
    assert done.stderr.count("the native kernels are not built") == 1


def test_the_library_can_be_turned_off(monkeypatch):
    monkeypatch.setenv("FEWER_NATIVE", "0")
    assert native.load.__wrapped__() is None


def test_a_wrong_override_is_one_clear_error(monkeypatch):
    monkeypatch.setenv("FEWER_NATIVE_LIB", "/nowhere/lib.so")
    with pytest.raises(FewerError, match=r"FEWER_NATIVE_LIB='/nowhere/lib\.so' is not a file"):
        native.load.__wrapped__()


def test_a_file_that_is_no_library_falls_back(tmp_path, monkeypatch):
    fake = tmp_path / "lib.so"
    fake.write_bytes(b"not a library")
    monkeypatch.setenv("FEWER_NATIVE_LIB", str(fake))
    with pytest.warns(UserWarning, match="do not load"):
        assert native.load.__wrapped__() is None


def test_torch_and_the_library_share_one_openmp(lib):
    maps = _run(
        "import torch; from fewer.kernels import native; native.library(); torch.ones(9).sum(); "
        "print(len({l.split()[-1] for l in open('/proc/self/maps') if 'libgomp' in l}))"
    )
    assert maps.stdout.strip() in ("0", "1"), maps.stdout + maps.stderr
