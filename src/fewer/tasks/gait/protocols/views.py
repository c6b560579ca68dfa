"""Rank-1 for every pair of a probe view and a gallery view: what CASIA-B and OU-MVLP are scored by."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fewer.tasks.gait.protocols.distance import nearest
from fewer.tasks.gait.protocols.records import Walk, Walks
from fewer.tasks.gait.protocols.scores import Match, ViewTable

__all__ = ["view_table"]


def view_table(
    walks: Walks,
    condition: str,
    is_probe: Callable[[Walk], bool],
    is_gallery: Callable[[Walk], bool],
    *,
    without_gallery: str = "count",
) -> tuple[ViewTable, list[Match], int]:
    """Compare probes of each view with the gallery of each view.

    Parameters
    ----------
    walks
        Embeddings.
    condition
        Name of the table.
    is_probe, is_gallery
        Which sequences are which.
    without_gallery
        ``count`` probes whose person is not in the gallery view as wrong, or ``remove`` them.

    Returns
    -------
    table, matches, lacking
        Matches over all views but the probe's own; the number of pairs of probe and view without a gallery sequence.
    """
    probes, gallery = walks.rows(is_probe), walks.rows(is_gallery)
    people, views = walks.people, np.array([walk.view for walk in walks.walks])
    probe_views = tuple(sorted(set(views[probes])))
    gallery_views = tuple(sorted(set(views[gallery])))
    values = np.full((len(probe_views), len(gallery_views)), np.nan)
    best: dict[int, Match] = {}
    lacking = 0
    for i, seen in enumerate(probe_views):
        mine = probes[views[probes] == seen]
        for j, other in enumerate(gallery_views):
            there = gallery[views[gallery] == other]
            known = np.isin(people[mine], people[there])
            lacking += int((~known).sum()) if seen != other else 0
            asked = mine[known] if without_gallery == "remove" else mine
            if not len(asked):
                continue
            rows, distances = nearest(walks.embeddings[asked], walks.embeddings[there])
            values[i, j] = float((people[there[rows[:, 0]]] == people[asked]).mean())
            if seen == other:
                continue
            for probe, row, distance in zip(asked, rows[:, 0], distances[:, 0], strict=True):
                match = Match(walks.walks[int(probe)], walks.walks[int(there[row])], float(distance))
                kept = best.get(int(probe))
                # of all views, the match that misleads most is worth looking at
                if kept is None or (match.right, match.distance) < (kept.right, kept.distance):
                    best[int(probe)] = match
    return ViewTable(condition, probe_views, gallery_views, values), list(best.values()), lacking
