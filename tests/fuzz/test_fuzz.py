"""At most a minute of the fuzzer; ``tests/fuzz/run.py`` runs as long as you like."""

from __future__ import annotations

import pytest

from tests.fuzz.run import TARGETS, fuzz
from tests.fuzz.samples import make_all

pytest.importorskip("monai", reason="the samples need the [medical] extra")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz") / "base"
    make_all(folder)
    return folder


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_every_damaged_file_and_flag_is_told_in_one_sentence(base, target):
    assert fuzz(25, seed=0, base=base, targets=[target], seconds=1) == []
