"""The page of results, and what the README says of them, are the committed tables."""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path
from statistics import fmean, median

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "results.md").read_text("utf-8")
README = (ROOT / "README.md").read_text("utf-8")
SMALL, MOBILE = "fewer/dinov2-small", "fewer/mobilenet-v2"


def rows(name: str) -> list[dict[str, str]]:
    """Rows of a table, without its comments."""
    lines = (ROOT / "benchmarks" / "results" / f"{name}.csv").read_text("utf-8").splitlines()
    return list(csv.DictReader(line for line in lines if not line.startswith("#")))


@pytest.fixture(scope="module")
def allocation() -> dict[tuple[str, ...], float]:
    """Means over seeds by model, pattern, sparsity, method and what was measured; whole models, cut in order."""
    found = defaultdict(list)
    for row in rows("allocation"):
        if row["how"] == "in order":
            key = (row["model"], row["pattern"], row["sparsity"], row["method"])
            found[(*key, "distortion")].append(float(row["distortion"]))
            found[(*key, "quality")].append(float(row["quality"]))
    return {key: fmean(values) for key, values in found.items()}


def test_half_of_the_weights(allocation) -> None:
    names = {
        "Wanda, uniform": "wanda", "SparseGPT, uniform": "sparsegpt", "our repair, uniform": "uniform",
        "our repair, LAMP": "lamp", "our repair, exact DP": "dp",
    }  # fmt: skip
    table = dict(line.strip("|").split("|", 1) for line in PAGE.splitlines() if line.startswith("| "))
    for label, method in names.items():
        shown = [cell.strip(" *") for cell in table[f" {label} "].split("|")]
        assert shown == [f"{allocation[m, 'unstructured', '0.5', method, 'distortion']:.3f}" for m in (SMALL, MOBILE)]


def test_times_below_sparsegpt(allocation) -> None:
    def ratio(model: str, share: str) -> str:
        one, other = (allocation[model, "unstructured", share, m, "distortion"] for m in ("sparsegpt", "dp"))
        return f"{one / other:.1f}"

    assert f"{ratio(SMALL, '0.5')} and {ratio(MOBILE, '0.5')} times below SparseGPT-uniform" in PAGE
    for model, where in ((SMALL, "DINOv2"), (MOBILE, "MobileNetV2")):
        low, high, most = (ratio(model, share) for share in ("0.3", "0.7", "0.8"))
        assert f"{low}, {high} and {most} times on {where}" in PAGE


def test_cosines_and_where_the_plan_is_not_the_lowest(allocation) -> None:
    def of(method: str, share: str, what: str = "distortion", pattern: str = "unstructured") -> float:
        return allocation[SMALL, pattern, share, method, what]

    ours, sparse, wanda = (of(name, "0.5", "quality") for name in ("dp", "sparsegpt", "wanda"))
    assert f"a cosine of {ours:.3f} (SparseGPT {sparse:.3f}, Wanda {wanda:.3f})" in PAGE
    first, second, third = (of(name, "0.7") for name in ("dp", "uniform", "lamp"))
    assert first < min(second, third) and f"({first:.3f}; uniform {second:.3f}, LAMP {third:.3f})" in PAGE
    first, second, third = (of(name, "0.8") for name in ("dp", "uniform", "lamp"))
    assert first > max(second, third) and f"({first:.3f}, {second:.3f}, {third:.3f})" in PAGE
    assert "At 80 % of DINOv2 the exact plan loses to a uniform one" in README
    assert f"At 80 % that gives {of('auto', '0.8'):.3f}" in PAGE
    blocks = "block:16x16"
    half = [of(name, "0.5", pattern=blocks) for name in ("auto", "dp", "uniform", "sparsegpt")]
    more = [of(name, "0.7", pattern=blocks) for name in ("auto", "dp", "uniform", "sparsegpt")]
    assert "it ends at {:.3f} (the DP's plan {:.3f}, uniform {:.3f}, SparseGPT {:.2f})".format(*half) in PAGE
    assert "at 70 % at {:.3f} ({:.3f}, {:.3f} and {:.2f})".format(*more) in PAGE


def _frontier(name: str, method: str, point: str, model: str = SMALL) -> list[tuple[float, float]]:
    """Times faster than torch, and quality, of each seed."""
    found = [row for row in rows(name) if (row["model"], row["method"], row["point"]) == (model, method, point)]
    return [(float(r["times_faster"]), float(r["quality"])) for r in sorted(found, key=lambda row: row["seed"])]


def test_time() -> None:
    tokens = {point: _frontier("frontier_zen5", "ours with tokens", point) for point in ("0.09", "0.105", "0.08")}
    for (fast, exact), (second, likeness) in (
        (tokens["0.09"][0], tokens["0.105"][1]),
        (tokens["0.08"][0], tokens["0.09"][1]),
    ):
        assert f"{fast:.1f} and {second:.1f} times" in PAGE
        assert f"{exact:.3f} and {likeness:.3f}" in PAGE
    (fast, exact), (second, likeness) = _frontier("frontier_zen5", "OpenVINO", "int8")
    told = f"OpenVINO int8 by NNCF is {(fast + second) / 2:.1f} times faster at {exact:.3f} and {likeness:.3f}"
    assert told in PAGE
    (fast, exact), (second, _) = _frontier("frontier_zen5", "onnxruntime", "int8 dynamic")
    assert f"onnxruntime int8 {(fast + second) / 2:.1f} times at {exact:.3f}" in PAGE


def test_where_there_are_no_int8_instructions() -> None:
    """There onnxruntime's int8 is slower and more exact."""
    theirs = _frontier("frontier_avx2", "onnxruntime", "int8 dynamic")
    ours = _frontier("frontier_avx2", "ours with tokens", "0.45") + _frontier("frontier_avx2", "ours", "0.5")
    assert "onnxruntime's int8 is 1.8 to 2.3 times faster at 0.998" in PAGE
    assert (f"{min(t for t, _ in theirs):.1f}", f"{max(t for t, _ in theirs):.1f}") == ("1.8", "2.3")
    assert {f"{quality:.3f}" for _, quality in theirs} <= {"0.997", "0.998", "0.999"}
    assert "onnxruntime's int8 is more exact" in README
    assert fmean(quality for _, quality in theirs) > fmean(quality for _, quality in ours)


def test_predicted_times() -> None:
    errors = [abs(float(row["error"])) for row in rows("latency_prediction")]
    assert len(errors) == 32 and f"is {100 * median(errors):.0f} %, the worst {100 * max(errors):.0f} %" in PAGE


def test_kernels() -> None:
    def times(name: str, precision: str, sparsity: str) -> str:
        (found,) = (
            float(row["times_faster"])
            for row in rows(name)
            if (row["batch"], row["precision"], row["sparsity"], row["backend"])
            == ("1", precision, sparsity, "accelerated")
        )
        return f"{found:.2g}" if found >= 1 else f"{found:.2f}"

    for precision, words in (("fp32", "runs"), ("bf16", "in bf16"), ("int8", "in int8")):
        shown = " / ".join(times("kernels_vit_small_1t", precision, share) for share in ("0.5", "0.7", "0.9"))
        assert f"{words} {shown}" in PAGE


def test_few_bits() -> None:
    right = defaultdict(list)
    for row in rows("gradients"):
        if row["network"] == "resnet8" and row["bits"] in ("w8a8g4", "w8a8g32"):
            right[row["row"]].append(float(row["accuracy"]))
    names = ("fp32 gradients", "stochastic-sample", "metagrad+stochastic-sample")
    assert all(len(right[name]) == 3 for name in (*names, "nearest"))
    mean = {name: 100 * fmean(values) for name, values in right.items()}
    dense, ours, hyper = (mean[name] for name in names)
    assert f"{dense - ours:.2f} points on CIFAR-10 ({dense:.2f} % with fp32 gradients, {ours:.2f} %" in PAGE
    assert (
        f"to the nearest {dense - mean['nearest']:.2f}" in PAGE and f"changes that by {abs(hyper - ours):.2f}" in PAGE
    )
    assert f"4-bit gradients lose {dense - ours:.1f} points; no gain from the hypernetwork" in README
    deployed = {row["where"]: f"{100 * float(row['accuracy']):.2f} %" for row in rows("lowbit_deployed")}
    assert f"{deployed['as trained (simulated)']} of 2,000 images right as simulated" in PAGE
    assert f"{deployed['native kernels']} on the native kernels and {deployed['ONNX with QDQ']} as ONNX" in PAGE


def test_a_third_of_the_error_at_the_speed_of_nncf() -> None:
    """Of the README: on each of the networks, some plan of ours is as fast and has less than a third of the error."""
    assert "a third of NNCF's error at its speed" in README and "[four CNNs]" in README
    found = defaultdict(dict)
    for row in rows("any_network_int8"):
        found[row["network"]][row["row"]] = (float(row["error"]), float(row["times_nncf"]))
    assert len(found) == 4
    for network, cells in found.items():
        theirs, _ = cells["openvino int8 by nncf"]
        assert any(e < theirs / 3 and times >= 1 for row, (e, times) in cells.items() if row.startswith("ours")), (
            network
        )


def test_fewer_pixels() -> None:
    """Of the README: top-1 at half of the FLOPs is no lower than that of the dense network."""
    (half,) = (
        r for r in rows("pixels") if (r["network"], r["flops"], r["pixels"]) == ("mobilenet-v2", "0.5", "offered")
    )
    (dense,) = (r for r in rows("any_network_int8") if (r["network"], r["row"]) == ("mobilenet-v2", "openvino fp32"))
    assert "MobileNetV2 keeps its top-1 at [half of its FLOPs]" in README
    assert float(half["top1"]) >= float(dense["top1"])


def test_adaptation() -> None:
    """Of the README: what MS-MT closes of the gap between two real modalities."""
    dice = {
        row["method"]: float(row["dice"])
        for row in rows("adapt")
        if (row["benchmark"], row["labels"], row["seed"], row["steps"], row["without"])
        == ("flair", "all", "0", "800", "")
    }
    least, most = dice["source-only"], dice["target-oracle"]
    assert f"{100 * (dice['ms-mt'] - least) / (most - least):.0f} % of a real gap closed (one seed)" in README


def test_encrypted_networks() -> None:
    found = defaultdict(list)
    for row in rows("private"):
        found[row["network"], row["budget"]].append(row)

    def seconds(*circuit: str) -> str:
        return f"{median(float(row['processor_s']) for row in found[circuit]):.2f} s"

    def right(*circuit: str) -> str:
        return f"{fmean(row['encrypted_class'] == row['label'] for row in found[circuit]):.1%}".replace("%", " %")

    whole, half = ("mnist-cnn", ""), ("mnist-cnn", "he=0.5x")
    assert f"MNIST's takes {seconds(*whole)} an image and has {right(*whole)} right" in PAGE
    assert f"cut to `he=0.5x` it takes {seconds(*half)} and has {right(*half)}" in PAGE
    assert f"The USPS network takes {seconds('usps-cnn', '')}." in PAGE
