"""Numbers of a training as a table and a drawing, and which state is the best."""

import csv
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from torch import nn

from fewer.training.history import Fit, History


def test_the_table_holds_every_number_exactly(tmp_path: Path) -> None:
    history = History([{"step": 1.0, "loss": 0.1}, {"step": 2.0, "loss": 1 / 3, "score": float("nan")}])
    history.save(tmp_path / "history.csv")
    rows = list(csv.DictReader((tmp_path / "history.csv").open()))
    assert [float(row["loss"]) for row in rows] == [0.1, 1 / 3]
    assert rows[0]["score"] == "" and rows[1]["score"] == "nan" and rows[1]["step"] == "2"


def test_the_plot_is_an_svg_with_every_number(tmp_path: Path) -> None:
    History([{"step": 1.0, "loss": 0.5, "score": 0.1}, {"step": 2.0, "loss": 0.2}]).save_plot(tmp_path / "h.svg")
    assert ElementTree.parse(tmp_path / "h.svg").getroot().tag.endswith("svg")
    History().save_plot(tmp_path / "empty.svg")


@pytest.mark.parametrize(("better", "best"), [("higher", 3), ("lower", 1)])
def test_of_equals_the_later_higher_score_and_the_earlier_lower_error_count(better: str, best: int) -> None:
    net = nn.Linear(1, 1)
    fit = Fit(better=better)  # type: ignore[arg-type]
    for step in (1, 2, 3, 4):
        fit.step = step
        net.weight.data.fill_(step)
        fit.note(net, float("nan") if step == 4 else 0.5)
    assert fit.best_step == best and not fit.improved
    fit.load_best(net)
    assert net.weight.item() == best


def test_the_best_state_is_a_copy() -> None:
    net, fit = nn.Linear(1, 1), Fit()
    fit.note(net, 1.0)
    kept = net.weight.detach().clone()
    net.weight.data.add_(1)
    assert fit.best is not None and torch.equal(fit.best["weight"], kept)
