"""GREW: the labels of its probes are not public; a CSV is sent in, and a local stand-in scores what has labels."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fewer.core.errors import FewerError
from fewer.tasks.gait.protocols.distance import nearest
from fewer.tasks.gait.protocols.ranked import score_ranked
from fewer.tasks.gait.protocols.records import Walk, Walks
from fewer.tasks.gait.protocols.scores import Scores

__all__ = ["Grew", "submission"]

_LIST = 20


@dataclass(frozen=True)
class Grew:
    """The local stand-in: the first sequence of a person is the gallery, the second probes.

    Its numbers cannot be compared with the leaderboard, whose probes are other ones; :func:`submission` writes the
    file for that.
    """

    name: str = "grew (local stand-in, not the leaderboard)"
    note: str = "rank-1 of second sequences among first ones; a CSV for the leaderboard"

    def fits(self, walks: Walks) -> bool:
        """Whether there is a folder ``probe``."""
        return any(walk.person == "probe" for walk in walks.walks)

    def __call__(self, walks: Walks) -> Scores:
        """Score embeddings of sequences with labels."""
        places: dict[str, list[int]] = {}
        for i in sorted(range(len(walks)), key=lambda i: walks.walks[i]):
            if walks.walks[i].person != "probe":
                places.setdefault(walks.walks[i].person, []).append(i)
        gallery = np.array([rows[0] for rows in places.values()], dtype=int)
        probes = np.array([row for rows in places.values() for row in rows[1:2]], dtype=int)
        return score_ranked(self.name, walks, probes, gallery)


def submission(walks: Walks) -> str:
    """The CSV that GREW's server takes: each probe and the identities of its twenty nearest sequences.

    As in OpenGait, an identity stands there as often as sequences of it are near.

    Parameters
    ----------
    walks
        Embeddings; those of the person ``probe`` are looked for among the others. The name of a probe's video is its
        ``kind``, or its ``view`` where kinds are no names: OpenGait puts all probes into the one kind ``03``.
        Identities that are numbers are written as such, without leading zeros, as OpenGait does.

    Raises
    ------
    FewerError
        When probes or gallery are missing.

    Examples
    --------
    >>> from fewer.tasks.gait.protocols.records import Walk
    >>> names = [Walk("00001", "a", "x"), Walk("00002", "b", "x"), Walk("probe", "p", "x")]
    >>> walks = Walks(names, np.array([[0.0], [1.0], [0.9]]))
    >>> submission(walks).splitlines()[1][:6]
    'p,2,1,'
    """
    probes, gallery = walks.rows(lambda w: w.person == "probe"), walks.rows(lambda w: w.person != "probe")
    if not len(probes) or not len(gallery):
        raise FewerError("GREW needs a folder 'probe' and a gallery of persons beside it; one of them is missing")
    rows, _ = nearest(walks.embeddings[probes], walks.embeddings[gallery], _LIST)
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(["videoId", *(f"rank{k}" for k in range(1, _LIST + 1))])
    videos = _videos([walks.walks[int(probe)] for probe in probes])
    for video, near in zip(videos, rows, strict=True):
        found = [_identity(walks.walks[int(gallery[row])].person) for row in near]
        # the server reads twenty columns; a smaller gallery repeats its last one
        table.writerow([video, *found, *[found[-1]] * (_LIST - len(found))])
    return out.getvalue()


def _videos(probes: Sequence[Walk]) -> list[str]:
    kinds, views = [walk.kind for walk in probes], [walk.view for walk in probes]
    if set(kinds) != {"03"} and len(set(kinds)) == len(kinds):
        return kinds
    return views if len(set(views)) == len(views) else [f"{walk.kind}/{walk.view}" for walk in probes]


def _identity(person: str) -> str:
    return str(int(person)) if person.isdecimal() else person
