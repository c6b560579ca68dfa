"""Results of an evaluation: in lines, and as a table that comes back."""

from __future__ import annotations

import math

from fewer.tasks.segment.evaluation import Evaluation
from fewer.tasks.segment.metrics import Score


def scores(count: int) -> Evaluation:
    return Evaluation(tuple(Score(f"case{i}", "lesion", "missed", 0, 0, 9) for i in range(count)))


def test_lines_name_the_worst_and_count_the_rest() -> None:
    lines = scores(7).lines()
    assert lines[0].split() == ["structure", "lesion"]
    assert sum(line.startswith("missed: lesion in") for line in lines) == 5
    assert lines[-1] == "and 2 more missed or spurious"


def test_what_a_class_is_written_to_csv_comes_back() -> None:
    result = Evaluation((Score('a "b", c', "lesion", "found", 8, 2, 2, 0.8, 0.667, 1.0, 0.5),))
    import csv
    import io

    rows = list(csv.DictReader(io.StringIO(result.to_csv())))
    assert rows[0]["case"] == 'a "b", c' and math.isclose(float(rows[0]["dice"]), 0.8)
    assert Evaluation.from_dict(result.to_dict()).scores == result.scores
