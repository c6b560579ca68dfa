"""Names beside the points of a figure: placed so that they cover neither each other nor a point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes

from fewer.reports.figure import COLOUR, SMALL, shorten

__all__ = ["Named", "Spot", "label_points", "place_boxes", "place_labels"]

LETTER, LINE = 6.9, 15.0
"""Width of a letter and height of a line at the small size, in pixels."""
_AROUND = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))
_AWAY = (9.0, 20.0, 34.0, 50.0)
_POINT = 6.0


@dataclass(frozen=True)
class Spot:
    """Where a text stands: its left lower corner and its size, in pixels."""

    x: float
    y: float
    width: float
    height: float

    def shared(self, other: Spot) -> float:
        """Area that two have in common."""
        wide = min(self.x + self.width, other.x + other.width) - max(self.x, other.x)
        high = min(self.y + self.height, other.y + other.height) - max(self.y, other.y)
        return max(0.0, wide) * max(0.0, high)


@dataclass(frozen=True)
class Named:
    """A point with a name, in data coordinates; ``span`` are the ends of its error bar along x."""

    x: float
    y: float
    name: str
    important: bool = False
    span: tuple[float, float] | None = None


def place_labels(
    points: Sequence[tuple[float, float]],
    lengths: Sequence[float],
    box: tuple[float, float],
    also: Sequence[Spot] = (),
) -> list[Spot]:
    """Find a place for the text of each point.

    Parameters
    ----------
    points
        In pixels, from the lower left corner.
    lengths
        Letters of each text.
    box
        Width and height of the panel; texts stay inside.
    also
        What no text may cover, beside the points.

    Returns
    -------
    list of Spot
        In the order of the points. The nearest place without overlap is taken, or the one with the least.

    Examples
    --------
    >>> first, second = place_labels([(50, 50), (52, 50)], [4, 4], (200, 100))
    >>> first.shared(second)
    0.0
    """
    return place_boxes(points, [(length * LETTER, LINE) for length in lengths], box, also)


def place_boxes(
    points: Sequence[tuple[float, float]],
    sizes: Sequence[tuple[float, float]],
    box: tuple[float, float],
    also: Sequence[Spot] = (),
) -> list[Spot]:
    """As :func:`place_labels`, for things of any width and height, such as small pictures.

    Examples
    --------
    >>> first, second = place_boxes([(50, 50), (60, 50)], [(40, 40), (40, 40)], (300, 200))
    >>> first.shared(second)
    0.0
    """
    dots = [Spot(x - _POINT, y - _POINT, 2 * _POINT, 2 * _POINT) for x, y in points]
    done: list[Spot] = []
    for (x, y), size in zip(points, sizes, strict=True):
        places = [_beside(x, y, size, way, away) for away in _AWAY for way in _AROUND]
        inside = [one for one in places if _within(one, box)]
        taken = [*dots, *also, *done]
        done.append(min(inside or places, key=lambda one: sum(one.shared(other) for other in taken)))
    return done


def _within(spot: Spot, box: tuple[float, float]) -> bool:
    return spot.x >= 0 and spot.y >= 0 and spot.x + spot.width <= box[0] and spot.y + spot.height <= box[1]


def _beside(x: float, y: float, size: tuple[float, float], way: tuple[int, int], away: float) -> Spot:
    across, up = way
    width, height = size
    left = x + away if across > 0 else x - away - width if across < 0 else x - width / 2
    below = y + away if up > 0 else y - away - height if up < 0 else y - height / 2
    return Spot(left, below, width, height)


def label_points(axes: Axes, points: Sequence[Named], longest: int = 30) -> None:
    """Write the names of points into a panel whose limits are set; important ones are bold.

    Parameters
    ----------
    axes
        As :func:`fewer.reports.figure.panel` makes them.
    points
        In data coordinates.
    longest
        Letters of a name that are shown.
    """
    corner, size = axes.bbox.min, axes.bbox.size

    def at(x: float, y: float) -> tuple[float, float]:
        place = axes.transData.transform((x, y)) - corner
        return float(place[0]), float(place[1])

    places = [at(one.x, one.y) for one in points]
    names = [shorten(one.name, longest) for one in points]
    bars = [
        Spot(at(one.span[0], one.y)[0], y - _POINT / 2, at(one.span[1], one.y)[0] - at(one.span[0], one.y)[0], _POINT)
        for one, (_, y) in zip(points, places, strict=True)
        if one.span is not None
    ]
    lengths = [len(name) * (1.1 if one.important else 1.0) for name, one in zip(names, points, strict=True)]
    spots = place_labels(places, lengths, (float(size[0]), float(size[1])), bars)
    for one, (x, y), name, spot in zip(points, places, names, spots, strict=True):
        middle = (spot.x + spot.width / 2 - x, spot.y + spot.height / 2 - y)
        far = max(abs(middle[1]) - spot.height / 2, abs(middle[0]) - spot.width / 2) > _AWAY[0] + 1
        line = {"arrowstyle": "-", "color": COLOUR["muted"], "linewidth": 0.7, "shrinkA": 0, "shrinkB": 4}
        axes.annotate(
            name, (one.x, one.y), xytext=middle, textcoords="offset points", ha="center", va="center", fontsize=SMALL,
            color=COLOUR["ours" if one.important else "ink"], fontweight="bold" if one.important else "normal",
            arrowprops=line if far else None, annotation_clip=False,
        )  # fmt: skip
