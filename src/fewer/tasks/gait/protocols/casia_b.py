"""CASIA-B: gallery of normal walks, probes in three conditions, the probe's own view left out (Yu et al., 2006)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fewer.core.errors import FewerError
from fewer.tasks.gait.protocols.records import Walk, Walks
from fewer.tasks.gait.protocols.scores import Scores
from fewer.tasks.gait.protocols.views import view_table

__all__ = ["CasiaB"]

_CONDITIONS = {"nm": "NM", "bg": "BG", "cl": "CL"}


@dataclass(frozen=True)
class CasiaB:
    """Gallery ``nm-01`` to ``nm-04``; probes ``nm-05`` and ``nm-06``, all ``bg`` and all ``cl``.

    For every probe view, rank-1 is averaged over the gallery views that differ from it, then over probe views.

    Attributes
    ----------
    gallery
        Number of normal walks, from the first, that are the gallery.

    Examples
    --------
    >>> CasiaB().is_gallery(Walk("001", "nm-04", "090")), CasiaB().is_gallery(Walk("001", "nm-05", "090"))
    (True, False)
    """

    gallery: int = 4
    name: str = "casia-b"
    note: str = "rank-1 by view, identical view left out; NM, BG, CL"

    def is_gallery(self, walk: Walk) -> bool:
        """Whether a sequence is in the gallery."""
        number = walk.kind.partition("-")[2]
        return walk.condition == "nm" and number.isdecimal() and int(number) <= self.gallery

    def fits(self, walks: Walks) -> bool:
        """Whether kinds are named as in CASIA-B."""
        return all(walk.condition in _CONDITIONS and "-" in walk.kind for walk in walks.walks)

    def __call__(self, walks: Walks) -> Scores:
        """Score embeddings.

        Raises
        ------
        FewerError
            When there is no gallery, no probe, or only one view.
        """
        if not len(walks.rows(self.is_gallery)):
            raise FewerError(f"CASIA-B needs a gallery (nm-01 to nm-{self.gallery:02}); these sequences have none")
        numbers, tables, matches, notes = {}, [], [], []
        for kind, title in _CONDITIONS.items():
            found = view_table(
                walks, kind, lambda w, kind=kind: w.condition == kind and not self.is_gallery(w), self.is_gallery
            )
            table, some, lacking = found
            if not table.probe_views:
                notes.append(f"no probe of the condition {title}")
                continue
            numbers[title] = 100.0 * table.mean()
            tables.append(table)
            matches += some
            if lacking:
                notes.append(
                    f"{title}: {lacking} comparisons have no sequence of the person in that view; they are wrong"
                )
        if not tables:
            raise FewerError("CASIA-B needs probes (nm-05, nm-06, bg-*, cl-*); these sequences have none")
        if all(not np.isfinite(value) for value in numbers.values()):
            raise FewerError("CASIA-B compares different views, and these sequences have only one; add another view")
        numbers = {name: value for name, value in numbers.items() if np.isfinite(value)}
        mean = float(np.mean(list(numbers.values())))
        ordered = sorted(matches, key=lambda m: (m.right, m.distance))
        return Scores(self.name, {"rank-1": mean, **numbers}, tables, (), ordered, notes)
