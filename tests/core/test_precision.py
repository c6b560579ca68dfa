"""One place for the names of precisions."""

from __future__ import annotations

import pytest

from fewer.core.errors import FewerError
from fewer.core.option import Option
from fewer.core.precision import KERNEL_PRECISIONS, PRECISIONS, check_precision, precision_of


def test_each_precision_is_less_exact_than_the_one_before() -> None:
    bits = [p.bits for p in PRECISIONS.values()]
    assert bits == sorted(bits, reverse=True)
    assert KERNEL_PRECISIONS == ("fp32", "bf16", "int8")


@pytest.mark.parametrize("name", PRECISIONS)
def test_options_know_the_same_names(name: str) -> None:
    assert Option(precision=name).bits == precision_of(name).bits


def test_a_wrong_name_is_told() -> None:
    with pytest.raises(FewerError, match="did you mean 'bf16'"):
        precision_of("bf61")
    with pytest.raises(FewerError, match="int4"):
        check_precision("int4", KERNEL_PRECISIONS)
    with pytest.raises(FewerError, match="unknown precision 'int3'"):
        Option(precision="int3")
