"""Who is it: the nearest known persons of every sequence, ranked, with pictures."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fewer.core.display import Told, skipped_lines
from fewer.core.errors import FewerError
from fewer.core.files import real_path
from fewer.core.progress import Progress
from fewer.core.staging import write_together
from fewer.tasks.folders import check_out, device_of, make_folder
from fewer.tasks.gait.data.dataset import GaitData, refuse_names
from fewer.tasks.gait.data.loose import open_sequences
from fewer.tasks.gait.data.video import mixed_rates
from fewer.tasks.gait.embed import embed_walks
from fewer.tasks.gait.loaded import network_of, open_run
from fewer.tasks.gait.networks import GaitNetwork
from fewer.tasks.gait.pages import matches_page
from fewer.tasks.gait.protocols.distance import nearest
from fewer.tasks.gait.protocols.records import Walks
from fewer.tasks.gait.protocols.scores import Match
from fewer.tasks.gait.settings import PredictSettings

__all__ = ["Matched", "predict"]


@dataclass(frozen=True, repr=False)
class Matched(Told):
    """What :func:`predict` wrote.

    Attributes
    ----------
    folder
        With ``matches.json``, ``matches.csv``, ``matches.html`` and ``embeddings.npz``.
    ranked
        Matches of every sequence, near ones first.
    skipped
        Sequences that could not be used, and why.
    notes
        What makes the distances doubtful.
    """

    folder: Path
    ranked: tuple[tuple[Match, ...], ...]
    skipped: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """The nearest match of every sequence (the first twenty), and what was skipped."""
        told = [f"{some[0].probe} -> {some[0].found} ({some[0].distance:.3f})" for some in self.ranked[:20]]
        if len(self.ranked) > 20:
            told.append(f"and {len(self.ranked) - 20} more")
        told += [*self.notes, *skipped_lines(self.skipped)]
        return [*told, f"see {self.folder}"]

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        matches = [
            {
                "sequence": str(some[0].probe),
                "matches": [
                    {"person": m.found.person, "sequence": str(m.found), "distance": round(m.distance, 5)} for m in some
                ],
            }
            for some in self.ranked
        ]
        skipped = [{"sequence": name, "reason": reason} for name, reason in self.skipped]
        return {"folder": str(self.folder), "matches": matches, "skipped": skipped, "notes": list(self.notes)}


def predict(
    run: str | Path,
    inputs: str | Path,
    *,
    out: str | Path,
    settings: PredictSettings | None = None,
    overwrite: bool = False,
    resume: bool = False,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Matched:
    """Write the nearest known sequences of every sequence.

    Parameters
    ----------
    run
        Run folder.
    inputs
        Data set, folder of sequences, one sequence, or one video.
    out
        Folder for the results.
    settings
        See :class:`~fewer.tasks.gait.settings.PredictSettings`; ``gallery`` names the known persons.
    overwrite, resume
        Replace results that are there.

    Raises
    ------
    FewerError
        When the run or all sequences cannot be used, there is no gallery, or results are there already.
    """
    settings = settings or PredictSettings()
    loaded = open_run(run)
    check_out(out, ("matches.json",), overwrite or resume)
    model = network_of(loaded).to(device_of(device))
    data = open_sequences(inputs)
    gallery = data if settings.gallery is None else open_sequences(settings.gallery)
    refuse_names(data)
    refuse_names(gallery)
    probes, skipped = embed_walks(model, data, data.walks, progress=progress)
    if settings.gallery is None:
        known = probes
        if len(probes) < 2:
            raise FewerError(f"{inputs} holds one sequence and nothing to compare it with; give --gallery FOLDER")
    else:
        known, more = embed_walks(model, gallery, gallery.walks, progress=progress)
        skipped = [*skipped, *more]
    ranked = _ranked(probes, known, settings.top, _itself(data, gallery, probes, known))
    if not all(ranked):
        raise FewerError(f"{settings.gallery} holds nothing but the sequence that is looked for; add known persons")
    folder = make_folder(out)
    notes: tuple[str, ...] = ()
    if _sees_movement(model) and (told := mixed_rates({*data.places.values(), *gallery.places.values()})):
        notes = (f"{told}, and this network looks at movement: distances between them mean little",)
    result = Matched(folder, ranked, tuple((str(walk), reason) for walk, reason in skipped), notes)
    page = matches_page(f"{Path(inputs).name} by {Path(run).name}", ranked, data, gallery, settings.pictures)
    buffer = io.BytesIO()
    np.savez(buffer, embeddings=probes.embeddings, names=np.array([str(w) for w in probes.walks], dtype=str))
    files = {
        "embeddings.npz": buffer.getvalue(),
        "matches.csv": _table(ranked),
        "matches.html": page.to_html(),
        "matches.json": json.dumps(result.to_dict(), indent=1) + "\n",
    }
    write_together(folder, files)
    return result


def _sees_movement(model: GaitNetwork) -> bool:
    return model.tpa is not None or model.config.network in ("gaitpart", "gaitgl", "deepgaitv2")


def _itself(data: GaitData, gallery: GaitData, probes: Walks, known: Walks) -> list[int]:
    """Where each probe stands in the gallery: a sequence that is found by itself says nothing. -1 where it does not."""
    places = {real_path(gallery.places[walk]): row for row, walk in enumerate(known.walks)}
    return [places.get(real_path(data.places[walk]), -1) for walk in probes.walks]


def _ranked(probes: Walks, known: Walks, top: int, itself: list[int]) -> tuple[tuple[Match, ...], ...]:
    rows, distances = nearest(probes.embeddings, known.embeddings, top + int(max(itself) >= 0))
    found = []
    for i, (near, far) in enumerate(zip(rows, distances, strict=True)):
        pairs = [(int(r), float(d)) for r, d in zip(near, far, strict=True) if int(r) != itself[i]]
        found.append(tuple(Match(probes.walks[i], known.walks[r], d) for r, d in pairs[:top]))
    return tuple(found)


def _table(ranked: tuple[tuple[Match, ...], ...]) -> str:
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(["sequence", "rank", "person", "match", "distance"])
    for some in ranked:
        for rank, match in enumerate(some, 1):
            rows.writerow([match.probe, rank, match.found.person, match.found, f"{match.distance:.5f}"])
    return out.getvalue()
