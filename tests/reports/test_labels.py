"""Names beside points: none covers another name or a point, and each is nearest to its own point."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure

from fewer.reports.labels import Named, Spot, label_points, place_labels


def dots(points) -> list[Spot]:
    return [Spot(x - 4, y - 4, 8, 8) for x, y in points]


@pytest.mark.parametrize("seed", range(20))
def test_nothing_is_covered(seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = [tuple(map(float, p)) for p in rng.uniform((40, 20), (560, 270), (9, 2))]
    spots = place_labels(points, rng.integers(4, 22, 9).tolist(), (600, 290))
    for i, spot in enumerate(spots):
        assert spot.x >= 0 and spot.x + spot.width <= 600 and spot.y >= 0 and spot.y + spot.height <= 290
        for other in (*spots[i + 1 :], *dots(points)):
            assert spot.shared(other) == 0


def test_an_error_bar_is_not_covered() -> None:
    bar = Spot(60.0, 97.0, 80.0, 6.0)
    (spot,) = place_labels([(100.0, 100.0)], [5], (400, 300), [bar])
    assert spot.shared(bar) == 0


def test_a_lonely_point_has_its_name_at_its_right() -> None:
    (spot,) = place_labels([(100.0, 100.0)], [5], (400, 300))
    assert spot.x == 109 and spot.y + spot.height / 2 == 100


def test_a_point_at_the_edge_has_its_name_inside() -> None:
    (spot,) = place_labels([(395.0, 100.0)], [8], (400, 300))
    assert spot.x + spot.width <= 395


def test_where_there_is_no_room_at_all_the_least_is_covered() -> None:
    spots = place_labels([(10.0, 10.0)] * 6, [10] * 6, (80, 20))
    assert len(spots) == 6


def test_names_are_written_in_full_or_cut_in_their_middle() -> None:
    axes = Figure().add_subplot()
    axes.set(xlim=(0, 10), ylim=(1, 100), yscale="log")
    label_points(axes, [Named(1, 10, "OpenVINO int8"), Named(8, 50, "a name that is far too long to show", True)], 15)
    texts = [text.get_text() for text in axes.texts]
    assert texts[0] == "OpenVINO int8" and len(texts[1]) == 15 and "…" in texts[1]
    assert [text.get_fontweight() for text in axes.texts] == ["normal", "bold"]
