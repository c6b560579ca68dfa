"""Gait3D, and one gallery across views or of one view: ranks, mAP and mINP of probes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fewer.core.errors import FewerError
from fewer.tasks.gait.protocols.casia_b import CasiaB
from fewer.tasks.gait.protocols.distance import nearest, ranks_of_positives
from fewer.tasks.gait.protocols.records import Walk, Walks
from fewer.tasks.gait.protocols.scores import Match, Scores, curve_of, rank_measures

__all__ = ["CrossView", "Gait3D", "OneGallery", "score_ranked"]


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
    # rows of the person in the own view are passed over, so as many more than one are asked for
    own = Counter((people[i], views[i]) for i in gallery)
    passed = max(own[people[i], views[i]] for i in probes) if other_views else 0
    rows, distances = nearest(vectors[probes], vectors[gallery], 1 + passed)
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


def first_of_each(walks: Walks, name: Callable[[Walk], Any]) -> np.ndarray:
    """Which sequences are the first of their name, in the order of all names.

    Examples
    --------
    >>> walks = Walks([Walk("a", "2", "x"), Walk("a", "1", "x"), Walk("b", "2", "x")], np.zeros((3, 1)))
    >>> first_of_each(walks, lambda walk: walk.person).tolist()
    [False, True, True]
    """
    first: dict[Any, Walk] = {}
    for walk in sorted(walks.walks):
        first.setdefault(name(walk), walk)
    chosen = set(first.values())
    return np.array([walk in chosen for walk in walks.walks])


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

    def probes_in(self, walks: Walks) -> np.ndarray:
        """Which sequences are probes."""
        if self.probes:
            names = {name.replace("/", "-") for name in self.probes}
            return np.array([f"{w.person}-{w.kind}-{w.view}" in names for w in walks.walks])
        return first_of_each(walks, lambda walk: walk.person)

    def __call__(self, walks: Walks) -> Scores:
        """Score embeddings."""
        is_probe = self.probes_in(walks)
        found = score_ranked(self.name, walks, np.flatnonzero(is_probe), np.flatnonzero(~is_probe))
        lost = len({name.replace("/", "-") for name in self.probes}) - int(is_probe.sum()) if self.probes else 0
        told = f"{lost} of {len(self.probes)} listed probes are not among these sequences; they are left out"
        return replace(found, notes=[*found.notes, told]) if lost > 0 else found


@dataclass(frozen=True)
class CrossView:
    """One gallery over all views: probes ``-01`` of each condition against ``-02`` of all, other views only.

    The stricter protocol for CASIA-B (Hou et al., 2022), as OpenGait computes it: the gallery holds ``nm-02``,
    ``bg-02`` and ``cl-02`` in all views together, a probe may not be found in its own view, and every probe view counts
    alike. For other names of kinds, the first kind of a person in a view probes and the rest is the gallery; where each
    view has one kind alone, the first view probes.
    """

    name: str = "cross-view"
    note: str = "rank-1, mAP and mINP in one gallery over all other views"

    def fits(self, walks: Walks) -> bool:
        """Always."""
        return True

    def __call__(self, walks: Walks) -> Scores:
        """Score embeddings."""
        by_name = all(walk.kind.partition("-")[2].isdecimal() for walk in walks.walks)
        gallery = walks.rows(lambda w: by_name and _number(w) == 2)
        found: dict[str, Scores] = {}
        for condition in sorted({walk.condition for walk in walks.walks}) if len(gallery) else ():
            probes = walks.rows(lambda w, c=condition: w.condition == c and _number(w) == 1)
            if set(walks.people[probes]) & set(walks.people[gallery]):
                found[condition.upper()] = _by_view(self.name, walks, probes, gallery)
        if not found:
            is_probe = first_of_each(walks, lambda walk: (walk.person, walk.view))
            if is_probe.all():  # one sequence a view: the first view is looked for in the others
                is_probe = first_of_each(walks, lambda walk: walk.person)
            return score_ranked(self.name, walks, np.flatnonzero(is_probe), np.flatnonzero(~is_probe), other_views=True)
        numbers = _means([scores.numbers for scores in found.values()])
        numbers |= {name: scores.numbers["rank-1"] for name, scores in found.items()}
        curve = np.mean([scores.curve for scores in found.values()], 0).tolist()
        matches = sorted((m for s in found.values() for m in s.matches), key=lambda m: (m.right, m.distance))
        notes = [f"{name}: {note}" for name, scores in found.items() for note in scores.notes]
        return Scores(self.name, numbers, (), curve, matches, notes)


def _number(walk: Walk) -> int:
    return int(walk.kind.partition("-")[2])


def _means(several: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {key: float(np.mean([numbers[key] for numbers in several])) for key in several[0]}


def _by_view(name: str, walks: Walks, probes: np.ndarray, gallery: np.ndarray) -> Scores:
    """Ranks of probes, every probe view counting alike; a view none of whose persons can be found does not count."""
    whole = score_ranked(name, walks, probes, gallery, other_views=True)
    views = np.array([walk.view for walk in walks.walks])
    several = []
    for view in sorted(set(views[probes])):
        some = probes[views[probes] == view]
        known = set(walks.people[gallery[views[gallery] != view]])
        if known & set(walks.people[some]):
            several.append(score_ranked(name, walks, some, gallery, other_views=True).numbers)
    return replace(whole, numbers=_means(several))


@dataclass(frozen=True)
class OneGallery:
    """One gallery whatever the views: for recordings of one camera, or whose views have names of their own.

    Where kinds are named as in CASIA-B, its gallery is taken, and each condition is told. Otherwise the first sequence
    of each person is a probe, and all others are the gallery.

    Examples
    --------
    >>> names = [Walk("a", "monday", "door"), Walk("a", "friday", "door"), Walk("b", "monday", "door")]
    >>> OneGallery()(Walks(names, np.array([[0.0], [0.1], [5.0]]))).numbers["rank-1"]
    100.0
    """

    name: str = "one-gallery"
    note: str = "rank-1, mAP and mINP in one gallery of all views, the probe's own as well"

    def fits(self, walks: Walks) -> bool:
        """Whether no walk was seen from two sides, so that views cannot be compared."""
        return len({(walk.person, walk.kind) for walk in walks.walks}) == len(walks)

    def __call__(self, walks: Walks) -> Scores:
        """Score embeddings.

        Raises
        ------
        FewerError
            When nobody has two sequences.
        """
        casia = CasiaB()
        gallery = walks.rows(casia.is_gallery) if casia.fits(walks) else np.zeros(0, int)
        if not len(gallery) or len(gallery) == len(walks):
            counts = Counter(walk.person for walk in walks.walks)
            if max(counts.values()) < 2:
                raise FewerError(f"{self.name} needs a person with two sequences: one is looked for, one is found")
            several = np.array([counts[walk.person] > 1 for walk in walks.walks])
            is_probe = first_of_each(walks, lambda walk: walk.person) & several
            return score_ranked(self.name, walks, np.flatnonzero(is_probe), np.flatnonzero(~is_probe))
        known = set(gallery.tolist())
        probes = np.array([i for i in range(len(walks)) if i not in known])
        found = score_ranked(self.name, walks, probes, gallery)
        by_condition = {}
        for condition in sorted({walks.walks[i].condition for i in probes}):
            some = np.array([i for i in probes if walks.walks[i].condition == condition])
            if set(walks.people[some]) & set(walks.people[gallery]):
                numbers = score_ranked(self.name, walks, some, gallery).numbers
                by_condition[condition.upper()] = numbers["rank-1"]
        return replace(found, numbers=found.numbers | by_condition)
