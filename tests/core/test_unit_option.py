"""Units count what they should; options read back as what they were."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fewer.core.errors import FewerError
from fewer.core.option import Option
from fewer.core.unit import Unit


def test_unit_counts():
    unit = Unit("stem", "conv2d", (32, 3, 3, 3), positions=112 * 112)
    assert (unit.numel, unit.rows, unit.cols) == (864, 32, 27)
    assert unit.macs == 864 * 112 * 112  # the textbook count of a convolution


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("a", "lineer", (2, 2)), "did you mean 'linear'"),
        (("a", "linear", (2, 2, 2)), "needs a weight of 2 positive sizes"),
        (("a", "conv2d", (2, 0, 3, 3)), "needs a weight of 4 positive sizes"),
        (("a", "linear", (2, 2), 0), "positive groups"),
        (("a", "linear", (2, 2), 1, float("nan")), "positive groups and positions"),
    ],
)
def test_bad_units(arguments, says):
    with pytest.raises(FewerError, match=says):
        Unit(*arguments)


patterns = st.sampled_from(["unstructured", "block:16x4", "block:1x1"])
precisions = st.sampled_from(["fp32", "fp16", "bf16", "int8", "int4"])


@given(
    st.one_of(
        st.builds(Option, patterns, st.floats(0, 1), precisions),
        st.builds(Option, st.sampled_from(["dense", "nm:2:4", "nm:1:3"]), precision=precisions),
    )
)
def test_options_round_trip(option):
    assert Option.parse(str(option)) == option


def test_text_forms():
    assert str(Option()) == "dense"
    assert str(Option("nm:2:4")) == "nm:2:4" and Option("nm:1:4").sparsity == 0.75
    assert str(Option("unstructured", 0.5, "int8")) == "unstructured@0.5/int8"
    assert Option("unstructured", 0.5, "int8").kept_bits == 4.0
    assert (Option("dense", 0.0, "bf16").bits, Option("dense", 0.0, "int4").bits) == (16, 4)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("unstructurd@0.5", "did you mean 'unstructured'"),
        ("block:16", "did you mean 'block:16x4'"),
        ("block:16:4@0.5", "unknown pattern"),
        ("block:0x4@0.5", "unknown pattern"),
        ("nm:4:2", "keeps more weights than there are"),
        ("nm:2:4@0.7", "has sparsity 0.5, not 0.7"),
        ("dense@0.5", "a dense option has no sparsity"),
        ("unstructured@1.5", "from 0 to 1"),
        ("unstructured@half", "cannot read the sparsity 'half'"),
        ("dense/int99x", "unknown precision"),
        ("dense/ints8", "did you mean 'int8'"),
        ("", "unknown pattern ''"),
    ],
)
def test_bad_options(text, says):
    with pytest.raises(FewerError, match=says):
        Option.parse(text)
