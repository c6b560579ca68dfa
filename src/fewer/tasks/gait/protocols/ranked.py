"""Gait3D and galleries across views: ranks, mAP and mINP of probes in one gallery."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np

from fewer.core.errors import FewerError
from fewer.tasks.gait.protocols.distance import nearest, ranks_of_positives
from fewer.tasks.gait.protocols.records import Walk, Walks
from fewer.tasks.gait.protocols.scores import Match, Scores, curve_of, rank_measures

__all__ = ["CrossView", "Gait3D", "score_ranked"]


def score_ranked(
    name: str, walks: Walks, probes: np.ndarray, gallery: np.ndarray, *, other_views: bool = False
) -> Scores:
    """Ranks, mAP and mINP of probes among gallery rows.

    Parameters
    ----------
    name
        Of the protocol.
    walks
        Embeddings.
    probes, gallery
        Positions in them.
    other_views
        Leave gallery sequences of the same person in the probe's own view out.

    Raises
    ------
    FewerError
        When there is no probe, no gallery, or no probe has its person in the gallery.
    """
    if not len(probes) or not len(gallery):
        raise FewerError(f"{name} needs probes and a gallery; there are {len(probes)} and {len(gallery)} sequences")
    people, views = walks.people, np.array([walk.view for walk in walks.walks])
    vectors = walks.embeddings
    ignore = np.concatenate([views[probes], views[gallery]]) if other_views else None
    ranks = ranks_of_positives(vectors[probes], people[probes], vectors[gallery], people[gallery], ignore=ignore)
    lacking = sum(not len(r) for r in ranks)
    if lacking == len(ranks):
        raise FewerError(f"{name}: no probe has its person in the gallery; check the partition")
    notes = [f"{lacking} probes have no sequence of their person in the gallery; they are left out"] if lacking else []
    # rows of the own view are passed over, so a few more than one are asked for
    rows, distances = nearest(vectors[probes], vectors[gallery], 16 if other_views else 1)
    matches = []
    for probe, near, far in zip(probes, rows, distances, strict=True):
        for row, distance in zip(near, far, strict=True):
            found = gallery[row]
            if other_views and people[found] == people[probe] and views[found] == views[probe]:
                continue
            matches.append(Match(walks.walks[int(probe)], walks.walks[int(found)], float(distance)))
            break
    matches.sort(key=lambda m: (m.right, m.distance))
    return Scores(name, rank_measures(ranks), (), curve_of(ranks), matches, notes)


@dataclass(frozen=True)
class Gait3D:
    """Probes by list; everything else of the test set is the gallery (Zheng et al., CVPR 2022).

    Attributes
    ----------
    probes
        Names ``person-kind-view`` or ``person/kind/view`` of the list PROBE_SET; empty takes the first sequence of
        each person.
    """

    probes: Collection[str] = field(default=())
    name: str = "gait3d"
    note: str = "rank-1, 5, 10, mAP and mINP of listed probes"

    def fits(self, walks: Walks) -> bool:
        """Only where probes are listed."""
        return bool(self.probes)

    def __call__(self, walks: Walks) -> Scores:
        """Score embeddings."""
        if self.probes:
            names = {name.replace("/", "-") for name in self.probes}
            is_probe = np.array([f"{w.person}-{w.kind}-{w.view}" in names for w in walks.walks])
        else:
            seen: set[str] = set()
            is_probe = np.array([not (w.person in seen or seen.add(w.person)) for w in walks.walks])
        return score_ranked(self.name, walks, np.flatnonzero(is_probe), np.flatnonzero(~is_probe))


@dataclass(frozen=True)
class CrossView:
    """One gallery over all views: probes ``-01`` of a condition against its ``-02``, other views only.

    The stricter protocol for CASIA-B: the gallery holds the same condition, all views together, and a probe may not be
    found in its own view. For other names of kinds, the first kind of a person in a view probes and the rest is the
    gallery.
    """

    name: str = "cross-view"
    note: str = "rank-1, mAP and mINP in one gallery over all other views"

    def fits(self, walks: Walks) -> bool:
        """Always."""
        return True

    def __call__(self, walks: Walks) -> Scores:
        """Score embeddings."""
        conditions = sorted({walk.condition for walk in walks.walks})
        by_name = all(walk.kind.partition("-")[2].isdecimal() for walk in walks.walks)
        if not by_name:
            first: dict[tuple[str, str], Walk] = {}
            for walk in sorted(walks.walks):
                first.setdefault((walk.person, walk.view), walk)
            chosen = set(first.values())
            is_probe = np.array([walk in chosen for walk in walks.walks])
            return score_ranked(self.name, walks, np.flatnonzero(is_probe), np.flatnonzero(~is_probe), other_views=True)
        found: dict[str, Scores] = {}
        for condition in conditions:
            probes = walks.rows(lambda w, c=condition: w.condition == c and int(w.kind.partition("-")[2]) == 1)
            gallery = walks.rows(lambda w, c=condition: w.condition == c and int(w.kind.partition("-")[2]) == 2)
            if len(probes) and len(gallery):
                found[condition.upper()] = score_ranked(self.name, walks, probes, gallery, other_views=True)
        if not found:
            raise FewerError("cross-view needs a sequence -01 and a sequence -02 of some condition; there is none")
        numbers = {
            key: float(np.mean([scores.numbers[key] for scores in found.values()]))
            for key in next(iter(found.values())).numbers
        }
        numbers |= {name: scores.numbers["rank-1"] for name, scores in found.items()}
        curve = np.mean([scores.curve for scores in found.values()], 0).tolist()
        matches = sorted((m for s in found.values() for m in s.matches), key=lambda m: (m.right, m.distance))
        notes = [f"{name}: {note}" for name, scores in found.items() for note in scores.notes]
        return Scores(self.name, numbers, (), curve, matches, notes)
