"""Finding the library, and forcing an instruction set by the environment."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from fewer.core.errors import FewerError


def _run(code: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-W", "always", "-c", code], env={**os.environ, **environment}, capture_output=True, text=True
    )


_PRINT = "from fewer.kernels import native; print(native.library().isa)"
_LAYER = """
import torch
from fewer.kernels.linear import BlockSparseLinear
layer = BlockSparseLinear.from_dense(torch.nn.Linear(32, 32))
print(layer.backend, tuple(layer(torch.zeros(2, 32)).shape))
"""


def test_the_environment_forces_an_instruction_set(lib):
    done = _run(_PRINT, FEWER_ISA="portable")
    assert done.stdout.strip() == "portable", done.stderr


def test_an_unknown_instruction_set_is_refused(lib):
    done = _run(_PRINT, FEWER_ISA="mmx")
    assert done.returncode == 1 and "FewerError: unknown instruction set" in done.stderr and "portable" in done.stderr


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


def test_without_the_library_the_slow_path_is_used_and_said_once(tmp_path):
    code = "from fewer.kernels import native\nnative._candidates = lambda: []\n" + _LAYER + "native.load()\n"
    done = _run(code)
    assert done.stdout.strip() == "gather (2, 32)", done.stderr
    assert done.stderr.count("the native kernels are not built") == 1


def test_the_library_can_be_turned_off():
    done = _run(_LAYER, FEWER_NATIVE="0")
    assert done.stdout.strip() == "gather (2, 32)", done.stderr


def test_a_wrong_override_is_one_clear_error():
    done = _run(_PRINT, FEWER_NATIVE_LIB="/nowhere/lib.so")
    assert "FewerError: FEWER_NATIVE_LIB='/nowhere/lib.so' is not a file" in done.stderr


def test_a_file_that_is_no_library_falls_back(tmp_path):
    fake = tmp_path / "lib.so"
    fake.write_bytes(b"not a library")
    done = _run(_LAYER, FEWER_NATIVE_LIB=str(fake))
    assert done.stdout.strip() == "gather (2, 32)", done.stderr
    assert "do not load" in done.stderr


def test_torch_and_the_library_share_one_openmp(lib):
    maps = _run(
        "import torch; from fewer.kernels import native; native.library(); torch.ones(9).sum(); "
        "print(len({l.split()[-1] for l in open('/proc/self/maps') if 'libgomp' in l}))"
    )
    assert maps.stdout.strip() in ("0", "1"), maps.stdout + maps.stderr
