"""OU-MVLP: sequence 01 is the gallery, 00 probes, in 14 views; two conventions, which differ by several points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fewer.core.errors import FewerError
from fewer.tasks.gait.protocols.records import Walk, Walks
from fewer.tasks.gait.protocols.scores import Scores
from fewer.tasks.gait.protocols.views import view_table

__all__ = ["OuMvlp"]


@dataclass(frozen=True)
class OuMvlp:
    """Gallery ``01``, probes ``00``, the probe's own view left out.

    Attributes
    ----------
    without_gallery
        The set lacks some sequences. ``count`` probes whose person is missing from a gallery view as wrong, so that
        nobody reaches 100 %; or ``remove`` them. Tables of the literature differ in this.
    """

    without_gallery: Literal["count", "remove"] = "count"
    note: str = "rank-1 by view, identical view left out; probes without gallery counted or removed"

    @property
    def name(self) -> str:
        """With the convention.

        Examples
        --------
        >>> OuMvlp("remove").name
        'ou-mvlp (probes without gallery removed)'
        """
        told = "counted" if self.without_gallery == "count" else "removed"
        return f"ou-mvlp (probes without gallery {told})"

    def is_gallery(self, walk: Walk) -> bool:
        """Whether a sequence is in the gallery."""
        return walk.kind == "01"

    def fits(self, walks: Walks) -> bool:
        """Whether kinds are named as in OU-MVLP."""
        return {walk.kind for walk in walks.walks} == {"00", "01"}

    def __call__(self, walks: Walks) -> Scores:
        """Score embeddings.

        Raises
        ------
        FewerError
            When there is no gallery or no probe.
        """
        for kind in ("00", "01"):
            if not any(walk.kind == kind for walk in walks.walks):
                raise FewerError(f"OU-MVLP needs sequences {kind}; there are none")
        table, matches, lacking = view_table(
            walks, "all", lambda w: w.kind == "00", self.is_gallery, without_gallery=self.without_gallery
        )
        notes = [f"{lacking} comparisons have no sequence of the person in that view"] if lacking else []
        ordered = sorted(matches, key=lambda m: (m.right, m.distance))
        return Scores(self.name, {"rank-1": 100.0 * table.mean()}, [table], (), ordered, notes)
