"""The tables of docs/select_measured.md as Markdown, from results/cold_start_summary.csv and cold_start.csv.

python benchmarks/cold_start_tables.py
"""

from __future__ import annotations

import csv
from pathlib import Path

SUMMARY = Path(__file__).parent / "results" / "cold_start_summary.csv"
BUDGETS = ("10", "20", "50", "100", "area")
METHODS = ("random", "coverage", "typiclust", "kcenter", "probcover", "saal", "saal-corrected", "foreground-random")
TITLES = {
    ("elpv", "dinov2-small"): "elpv, DINOv2-small (accuracy)",
    ("elpv", "mobilenet-v2"): "elpv, MobileNetV2 (accuracy)",
    ("lesions", "dinov2-small"): "simulated lesions, DINOv2-small (mean Dice)",
    ("mnist", "mobilenet-v2"): "MNIST, MobileNetV2 (accuracy)",
    ("lesions", "trained U-Net"): "simulated lesions, trained U-Net (mean Dice)",
}
NAMES = {"typiclust": "TypiClust", "kcenter": "k-centre", "probcover": "ProbCover"}
Cells = dict[tuple[str, ...], dict[str, str]]


def number(row: dict[str, str], value: str = "gain") -> str:
    """A difference in points with its interval."""
    return f"{100 * float(row[value]):+.1f} ± {100 * float(row[f'{value}_interval']):.1f}"


def gains(cells: Cells, pool: tuple[str, str], among: str, methods: tuple[str, ...]) -> list[str]:
    """Gain over random of one pool; the number of seeds stands beside a gain where it is not that of the column."""
    mine = {budget: cells.get((*pool, "coverage", budget, among)) for budget in BUDGETS}
    usual = {budget: cell["seeds"] for budget, cell in mine.items() if cell}
    same = len(set(usual.values())) == 1
    title = TITLES[pool] + ("" if among == "all" else f", {among} seeds") + (f", {usual['10']} seeds" if same else "")
    budgets = [b for b in BUDGETS if b in usual]
    heads = [b if same else f"{b} ({usual[b]} seeds)" for b in budgets]
    lines = [f"| {title} | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    for method in methods:
        row, known = [], False
        for budget in budgets:
            cell = cells.get((*pool, method, budget, among))
            known |= cell is not None
            if cell is None:
                row.append("-")
            elif method == "random":
                row.append(f"{100 * float(cell['score']):.1f}")
            else:
                text = number(cell) + (f" ({cell['seeds']})" if cell["seeds"] != usual[budget] else "")
                row.append(f"**{text}**" if float(cell["gain"]) > float(cell["gain_interval"]) else text)
        if known:
            lines.append(f"| `{method}`{', %' if method == 'random' else ''} | " + " | ".join(row) + " |")
    return lines


def beside_best(cells: Cells) -> list[str]:
    """``coverage`` minus the best of its rivals."""
    lines = [
        "| `coverage` minus the best of TypiClust, ProbCover and k-centre | " + " | ".join(BUDGETS[:3]) + " |",
        "|---" * 4 + "|",
    ]
    for pool, title in TITLES.items():
        for among in ("all", "blind"):
            found = [cells.get((*pool, "coverage", budget, among)) for budget in BUDGETS[:3]]
            if any(found):
                texts = [f"{number(r, 'over_rival')} ({NAMES[r['best_rival']]})" if r else "-" for r in found]
                lines.append(f"| {title}{'' if among == 'all' else f', {among} seeds'} | " + " | ".join(texts) + " |")
    return lines


def second_rounds(rows: list[dict[str, str]]) -> list[str]:
    """Two rounds of ``coverage``, and the paired difference of other second rounds from it; seeds 10 to 29."""
    import numpy as np
    from scipy.stats import t as student

    score = {
        (r["pool"], r["features"], r["method"], r["budget"], int(r["seed"])): 100 * float(r["score"])
        for r in rows
        if 10 <= int(r["seed"]) < 30
    }
    default, others = "coverage in 2 rounds", ("leaning coverage in 2 rounds", "entropy in 2 rounds", "coverage")
    budgets = [b for b in BUDGETS[:4] if any(k[2:4] == (default, b) for k in score)]
    lines = ["| two rounds, seeds 10 to 29 | " + " | ".join(budgets) + " |", "|---" * (len(budgets) + 1) + "|"]
    for pool, title in TITLES.items():
        seeds = {b: [s for *case, s in score if case == [*pool, default, b]] for b in budgets}
        if not any(seeds.values()):
            continue
        means = [f"{np.mean([score[(*pool, default, b, s)] for s in seeds[b]]):.1f}" for b in budgets]
        lines.append(f"| {title}: `{default}`, % | " + " | ".join(means) + " |")
        for method in others:
            texts = []
            for budget in budgets:
                pairs = [((*pool, method, budget, s), (*pool, default, budget, s)) for s in seeds[budget]]
                over = np.array([score[one] - score[two] for one, two in pairs if one in score])
                half = student.ppf(0.975, len(over) - 1) * over.std(ddof=1) / len(over) ** 0.5 if len(over) > 1 else 0
                texts.append(f"{over.mean():+.1f} ± {half:.1f} ({len(over)})" if len(over) > 1 else "-")
            name = "coverage in one round" if method == "coverage" else method
            lines.append(f"| {title}: `{name}` | " + " | ".join(texts) + " |")
    return lines


def main() -> None:
    """Print all tables."""
    with SUMMARY.open() as file:
        rows = list(csv.DictReader(file))
    cells = {(r["pool"], r["features"], r["method"], r["budget"], r["set"]): r for r in rows}
    for pool in TITLES:
        print(*gains(cells, pool, "all", METHODS), "", sep="\n")
    for among in ("first blind", "blind"):
        for pool in {(r["pool"], r["features"]) for r in rows if r["set"] == among}:
            print(*gains(cells, pool, among, METHODS[:5]), "", sep="\n")
    print(*beside_best(cells), "", sep="\n")
    with SUMMARY.with_name("cold_start.csv").open() as file:
        print(*second_rounds(list(csv.DictReader(file))), sep="\n")


if __name__ == "__main__":
    main()
