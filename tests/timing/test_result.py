"""Rows, ratios, JSON, table and picture, from made-up samples."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree

import pytest
from rich.console import Console

from fewer.core.errors import FewerError
from fewer.timing.plot import to_svg
from fewer.timing.result import BenchResult, Row
from fewer.timing.table import bench_tables


def row(name, label, precision, wall, kind="peer", threads=1, **more):
    cpu = [value * threads for value in wall]
    return Row(
        name=name,
        label=label,
        runtime="x",
        precision=precision,
        kind=kind,
        threads=threads,
        wall_ms=wall,
        cpu_ms=cpu,
        **more,
    )


@pytest.fixture
def result():
    rows = [
        row("torch-fp32", "torch eager fp32", "fp32", [40.0, 80.0, 42.0], memory_bytes=300_000_000, relative_error=0.0),
        row("openvino-fp32", "OpenVINO fp32", "fp32", [20.0, 40.0, 21.0], relative_error=1e-6),
        row("onnxruntime-fp32", "onnxruntime fp32", "fp32", [30.0, 60.0, 30.0], note="made up"),
        row("openvino-int8", "OpenVINO int8", "int8", [10.0, 10.0, 10.0]),
        row("ours", "ours, a name that is too long for a narrow terminal", "fp32", [10.0, 20.0, 10.5], kind="extra"),
        Row(
            name="onnxruntime-int8",
            label="onnxruntime int8",
            runtime="onnxruntime",
            precision="int8",
            kind="peer",
            threads=1,
            status="skipped",
            reason="pip install fewer[deploy]",
        ),
    ]
    rows += [row("torch-fp32", "torch eager fp32", "fp32", [20.0, 20.0, 20.2], threads=2)]
    return BenchResult(
        model="toy", input_shapes=[[1, 3, 8, 8]], rounds=3, rows=rows, environment={"cpu": "x", "torch": "2"}
    )


def test_ratios_are_paired_and_within_the_precision(result):
    ours = result.row("ours")
    assert result.versus_eager(ours) == pytest.approx(4.0)
    assert result.best_dense(ours).name == "openvino-fp32"
    assert result.versus_best(ours) == pytest.approx(2.0)
    int8 = result.row("openvino-int8")
    assert result.best_dense(int8) is int8 and result.versus_best(int8) == 1.0
    assert result.versus_best(result.row("onnxruntime-fp32")) == pytest.approx(2 / 3)
    assert result.versus_eager(result.row("onnxruntime-int8")) is None


def test_an_extra_is_never_a_rival_of_another(result):
    result.rows.append(row("theirs", "theirs", "fp32", [1.0, 1.0, 1.0], kind="extra"))
    assert result.best_dense(result.row("ours")).name == "openvino-fp32"


def test_json_comes_back_the_same(result, tmp_path):
    again = BenchResult.from_json(result.to_json())
    assert again == result
    path = tmp_path / "deep" / "bench.json"
    result.to_json(path)
    assert BenchResult.from_json(path) == result
    table = json.loads(path.read_text())["table"]
    assert table[4]["versus_eager"] == pytest.approx(4.0) and table[5]["median_ms"] is None


@pytest.mark.parametrize("text", ["", "[1]", "{}", '{"schema_version": 2}', "nonsense"])
def test_json_that_is_no_bench_is_one_sentence(text):
    with pytest.raises(FewerError, match="not the result of a bench") as caught:
        BenchResult.from_json(text)
    assert "\n" not in str(caught.value)


def test_an_unknown_key_is_refused(result):
    data = json.loads(result.to_json())
    data["rows"][0]["speed"] = 1
    with pytest.raises(FewerError):
        BenchResult.from_json(json.dumps(data))


def printed(result, width):
    console = Console(width=width, file=None, color_system=None, highlight=False)
    with console.capture() as capture:
        console.print(bench_tables(result, width))
    return capture.get()


@pytest.mark.parametrize("width", [80, 140])
def test_the_table_fits_and_says_everything(result, width):
    text = printed(result, width)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width
    assert "onnxruntime int8" in text and "skipped: pip install fewer[deploy]" in text
    assert "4.00x" in text and "2.00x" in text and "best" in text
    assert "1 thread" in text and "2 threads" in text
    assert "…" not in text  # nothing is cut off
    assert "onnxruntime fp32: made up." in text


def test_the_table_names_noisy_rows(result):
    text = " ".join(printed(result, 140).split())
    assert "Noisy (~) at 1 thread" in text and "at 2 threads" not in text
    assert "~4.00x" in text and "~1.00x" not in text
    assert "OpenVINO int8" not in text.split("Noisy (~) at 1 thread")[1]


def test_the_picture_is_svg_without_background_and_without_outside_links(result, tmp_path):
    text = to_svg(result, tmp_path / "bench.svg")
    root = ElementTree.fromstring(text)
    assert root.tag.endswith("svg")
    assert "OpenVINO fp32" in text and "4x eager" in text.replace("4.00x", "4x")
    assert "pip install" not in text
    assert "http" not in text.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    )
    assert "#ffffff" not in text and "fill: #000" not in text
    assert text == to_svg(result)  # the same numbers, the same bytes


def test_no_timed_row_is_no_picture(result):
    result.rows = [r for r in result.rows if r.status == "skipped"]
    with pytest.raises(FewerError, match="no timed row"):
        to_svg(result)
