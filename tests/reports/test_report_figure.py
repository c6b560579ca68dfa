"""Figures: what they draw is what the report says."""

from __future__ import annotations

import re
import sys
from functools import cache
from subprocess import run

import pytest
import report_fixtures

from fewer.reports.compression import layer_plots, plots
from fewer.reports.compression.data import RunReport
from fewer.reports.compression.layers import blocks, roles
from fewer.reports.compression.words import layers_sentence
from fewer.reports.figure import COLOUR, ROLES, shorten, tick


@cache
def drawn(draw, name: str):
    """A figure of a fixture, drawn once."""
    return draw(report_fixtures.report(name))


ALL = (plots.baselines, plots.frontier, layer_plots.allocation, layer_plots.curves, plots.additivity, plots.timings)


def test_sentinel_colours_are_distinct():
    assert len(set(COLOUR.values())) == len(ROLES)


def test_colours_come_from_the_page():
    for draw in ALL:
        plot = drawn(draw, "realistic")
        for svg in (plot.wide, plot.narrow):
            assert "var(--" in svg
            # black is matplotlib's default: a colour that dark mode would not change
            assert not re.findall(r"(?:fill|stroke): (?!none|var\()[^;\"]+", svg)


def test_phone_text_is_readable():
    for draw in ALL:
        svg = drawn(draw, "realistic").narrow
        width = float(re.search(r'viewBox="0 0 ([\d.]+)', svg).group(1))
        sizes = [float(size) for size in re.findall(r"font-size: ([\d.]+)px", svg)]
        assert sizes and min(sizes) * 358 / width >= 11


@pytest.mark.parametrize("name", sorted(report_fixtures.FIXTURES))
def test_nothing_is_drawn_only_when_there_is_nothing(name):
    report = report_fixtures.report(name)
    assert (drawn(plots.baselines, name) is None) == (not report.baselines)
    assert (drawn(layer_plots.allocation, name) is None) == (not report.units)
    assert (drawn(layer_plots.curves, name) is None) == (not report.curves)


def bar_lengths(svg: str) -> list[float]:
    """Widths of the rectangles of a bar chart that carry a tooltip."""
    found = re.findall(r"<title>[^<]*</title><path d=\"M ([\d.]+) [\d.]+\s+L ([\d.]+) ", svg)
    return [float(right) - float(left) for left, right in found]


def test_bars_are_in_proportion_to_their_values():
    report = report_fixtures.report("realistic")
    lengths = bar_lengths(drawn(plots.baselines, "realistic").wide)
    values = sorted(row.distortion for row in report.baselines)
    assert len(lengths) == len(values)
    for length, value in zip(lengths, values, strict=True):
        assert length / lengths[-1] == pytest.approx(value / values[-1], rel=0.01)


def test_every_layer_answers_to_the_pointer():
    for name in ("realistic", "many", "tiny"):
        report = report_fixtures.report(name)
        wide = drawn(layer_plots.allocation, name).wide
        assert wide.count("<title>") == len(report.units)
        assert all(unit.name in wide for unit in report.units)


def layers_of(precisions: list[str], kept: float) -> RunReport:
    """A report of layers in these precisions that kept this share of their weights."""
    base = {"kind": "linear", "shape": [2, 5], "option": "x", "pattern": "x", "sparsity": 1 - kept, "weights": 10.0}
    units = [
        base | {"name": f"layer{i}", "precision": name, "kept_weights": 10 * kept} for i, name in enumerate(precisions)
    ]
    return RunReport.from_dict(report_fixtures.bare() | {"units": units})


@pytest.mark.parametrize("count", [10, 40])
def test_layers_that_were_only_rounded_show_their_bits(count):
    """Ten bars of 100 % would say nothing; the colour of a layer is its precision."""
    report = layers_of(["int8"] * (count - 2) + ["bf16", "fp32"], 1.0)
    plot = layer_plots.allocation(report)
    assert plot.title == "Bits per weight in each layer"
    assert [key.label for key in plot.legend][:3] == ["fp32", "bf16", "int8"]
    colours = [key.colour for key in plot.legend][:3]
    assert len(set(colours)) == 3
    for colour in colours:
        assert f"var(--{colour})" in plot.wide and f"var(--{colour})" in plot.narrow
    assert "100" not in plot.alt
    assert f"{count - 2} in int8, 1 in bf16, 1 in fp32" in layers_sentence(report)


def test_layers_in_several_precisions_keep_their_shares():
    plot = layer_plots.allocation(layers_of(["int8", "fp32"], 0.5))
    assert plot.title == "Weights kept in each layer"
    assert "50% in int8" in plot.wide and "50% in fp32" in plot.wide
    assert [key.label for key in plot.legend] == ["fp32", "int8"]


def test_layers_of_one_precision_are_coloured_by_role():
    report = report_fixtures.report("realistic")
    labels = [key.label for key in drawn(layer_plots.allocation, "realistic").legend]
    assert labels[:-1] == list(dict.fromkeys(roles(report.units)))


def test_the_axis_of_other_budgets_is_short_enough_for_a_phone():
    values = report_fixtures.realistic()
    values["frontier"]["label"] = "kept weights (each layer repaired on its own, 16 held-out images)"
    found = plots.frontier(RunReport.from_dict(values))
    drawn_words = re.findall(r"<text[^>]*>([^<]*)<", found.narrow)
    assert "each layer" in found.title and "each layer" not in " ".join(drawn_words)
    assert "kept weights (% of the dense model)" in drawn_words


def test_frontier_in_absolute_units():
    values = report_fixtures.realistic()
    values["frontier"].update(metric="size", label="file size", unit="bytes")
    for points in (values["frontier"]["ours"], *values["frontier"]["baselines"].values()):
        for point in points:
            point["cost"] *= 88e6
    svg = plots.frontier(RunReport.from_dict(values)).wide
    assert "40.0 MB" in svg
    assert "file size" in svg
    assert "%" not in svg


def test_a_frontier_of_one_point_and_of_zeros_among_others():
    values = report_fixtures.realistic()
    values["frontier"]["ours"] = [{"cost": 1.0, "measured": 0.0}, {"cost": 0.5, "measured": 0.1}]
    values["frontier"]["baselines"] = {"erk": [{"cost": 0.5, "measured": 0.2}]}
    plot = plots.frontier(RunReport.from_dict(values))
    assert [key.label for key in plot.legend] == ["fewer, measured", "ERK", "this run's model"]


def test_roles_and_blocks_of_other_families():
    def units(*names):
        base = {"kind": "conv2d", "shape": [1, 1], "option": "dense", "pattern": "dense", "sparsity": 0.0}
        report = {"units": [base | {"name": n, "kept_weights": 1.0, "weights": 1.0} for n in names]}
        return RunReport.from_dict(report_fixtures.bare() | report).units

    resnet = [f"layer{stage}.{block}.conv{conv}" for stage in (1, 2, 3, 4) for block in (0, 1) for conv in (1, 2)]
    assert set(roles(units(*resnet))) == {"conv1", "conv2"}
    assert blocks(resnet) == ("", [])
    assert set(roles(units("a", "b"))) == {"conv2d"}
    assert blocks([f"features.{index}.conv" for index in range(4)])[0] == "features.N"


def test_short_forms():
    assert [tick(value) for value in (1.0, 0.05, 0.001, 1e-4, 2e-10)] == ["1", "0.05", "0.001", "1e-4", "2e-10"]
    assert shorten("abc", 3) == "abc"
    assert len(shorten("x" * 100, 20)) == 20


def test_the_data_model_imports_neither_torch_nor_matplotlib():
    code = (
        "import sys; import fewer.reports.compression.data, fewer.core.stamp, fewer.reports.compression.words; "
        "fewer.reports.environment(); "
        "sys.exit(bool({'torch', 'matplotlib', 'numpy'} & set(sys.modules)))"
    )
    assert run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_layer_that_distortions_nothing_is_left_out_of_the_curves():
    values = report_fixtures.realistic()
    values["curves"][0]["distortion"] = [0.0] * len(values["curves"][0]["distortion"])
    plot = layer_plots.curves(RunReport.from_dict(values))
    assert "<svg" in plot.wide


def test_the_finished_model_is_a_point_among_other_budgets():
    report = report_fixtures.report("realistic")
    ((cost, value),) = plots.finished_point(report)
    budget = next(one for one in report.verdict.budgets if one.metric == report.frontier.metric)
    assert cost == budget.reached / budget.dense and value == report.verdict.distortion
    drawn = plots.frontier(report)
    assert drawn is not None and drawn.legend[-1].label == "this run's model" and "var(--good)" in drawn.wide
    report.frontier.unit = "ms"  # a cost in milliseconds is no share of the dense model
    assert plots.finished_point(report) == []
