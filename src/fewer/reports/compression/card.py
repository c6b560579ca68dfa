"""A model card in the form of the Hugging Face Hub, written from the report of a run."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from fewer.reports.compression.data import RunReport
from fewer.reports.compression.words import DISTORTION, enough_words, verdict_sentence
from fewer.reports.numbers import data_size, measure, percent, significant

__all__ = ["model_card"]

_TASKS = {"top-1 agreement": "image-classification", "feature cosine": "image-feature-extraction"}
"""The Hub's name for what a model does, by what the report compares."""


def model_card(name: str, report: RunReport | None, facts: Mapping[str, Any]) -> str:
    """Write the text of a card.

    Parameters
    ----------
    name
        Of the original model, such as ``timm/resnet50``.
    report
        Of the run; a model without one gets a card that says only how to load it.
    facts
        What the recipe says: ``patterns`` and ``precisions`` of the layers, and ``layers``, how many were changed.

    Returns
    -------
    str
        Markdown below a head in YAML. No path of the machine that made the model stands in it.

    Examples
    --------
    >>> text = model_card("timm/resnet50", None, {"layers": 2, "patterns": ["unstructured"], "precisions": ["int8"]})
    >>> print(text[:text.index("#")])
    ---
    library_name: fewer
    tags: ["fewer", "compression", "pruning", "quantization"]
    base_model: "timm/resnet50"
    ---
    <BLANKLINE>
    <BLANKLINE>
    """
    parts = [_head(name, report, facts), f"# {_plain(name)}, made smaller with fewer", _what(facts)]
    if report is not None:
        parts += [verdict_sentence(report), enough_words(report), _numbers(report), _data(report)]
    parts += [_USE, _limits(report)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(name: str, report: RunReport | None, facts: Mapping[str, Any]) -> str:
    tags = ["fewer", "compression"]
    tags += ["pruning"] if any(one != "dense" for one in facts.get("patterns", ())) else []
    tags += ["quantization"] if any(one != "fp32" for one in facts.get("precisions", ())) else []
    lines = ["---", "library_name: fewer", f"tags: {json.dumps(tags)}"]
    task = next((_TASKS[q.name] for q in report.verdict.quality if q.name in _TASKS), None) if report else None
    lines += [f"pipeline_tag: {task}"] if task else []
    # only these are repositories of the Hub
    if name.startswith(("timm/", "hf/")):
        lines.append(f"base_model: {json.dumps(name.removeprefix('hf/'))}")
    return "\n".join([*lines, "---"])


def _what(facts: Mapping[str, Any]) -> str:
    patterns = ", ".join(f"`{one}`" for one in facts.get("patterns", ()) if one != "dense") or "none"
    precisions = ", ".join(facts.get("precisions", ())) or "fp32"
    return f"{facts.get('layers', 0)} layers were changed. Patterns of zeros: {patterns}. Number formats: {precisions}."


def _numbers(report: RunReport) -> str:
    rows = []
    for got in report.verdict.budgets:
        share = f" ({percent(got.reached / got.dense)} of the original)" if got.dense else ""
        rows.append((f"budget {got.budget}", ("met" if got.met else "**not met**") + share))
    for one in report.verdict.quality:
        before = f", {measure(one.dense, 3)} before" if one.dense is not None else ""
        rows.append((one.name, f"{measure(one.value, 3)}{before}"))
    if report.model.artefact_bytes and report.model.source_bytes:
        rows.append(("file", f"{data_size(report.model.artefact_bytes)}, from {data_size(report.model.source_bytes)}"))
    table = ["| | |", "|---|---|", *(f"| {_plain(a)} | {_plain(b)} |" for a, b in rows)]
    rivals = [row for row in report.baselines if row.met] if report.recovery is None else []
    if len(rivals) > 1:
        table += ["", "Distortion at the same budget:", "", "| method | distortion |", "|---|---|"]
        table += [
            f"| {_plain(r.label)} | {significant(r.distortion)} |" for r in sorted(rivals, key=lambda r: r.distortion)
        ]
    return "\n".join([*table, "", DISTORTION])


def _data(report: RunReport) -> str:
    if report.data is None:
        return ""
    return (
        f"{report.data.calibration} unlabelled images steered the compression, {report.data.heldout} others judged it. "
        "They are not part of this folder."
    )


_USE = """## How to use it

```python
import fewer
from huggingface_hub import snapshot_download

model = fewer.load(snapshot_download("OWNER/NAME"))  # or fewer.load("this folder")
```

The weights are packed: zeros take no room in `model.safetensors`, and `recipe.json` says how they are laid out.
There is no pickle and no code in this folder. `preprocessor_config.json` says how an image becomes an input."""


def _limits(report: RunReport | None) -> str:
    lines = ["## Limits", "", "- The licence is that of the original model; `fewer` does not know it."]
    lines += [f"- {_plain(one)}" for one in (report.limits if report else ())]
    return "\n".join(lines)


def _plain(text: str) -> str:
    """Text that cannot end a cell, a line or begin markup."""
    return re.sub(r"[|<>\r\n]", " ", str(text))
