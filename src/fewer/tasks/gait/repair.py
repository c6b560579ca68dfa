"""``fewer doctor --fix``: a copy of a folder of walks without what spoils it; the original stays."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fewer.core.errors import FewerError
from fewer.core.progress import Progress, Silent
from fewer.tasks.findings import Repaired, whole_copy
from fewer.tasks.gait.data.dataset import GaitData, write_partition, write_sequence
from fewer.tasks.gait.doctor import LEFT_OUT, WalkCheckup, empty_frames, missing_probes
from fewer.tasks.gait.protocols.records import Walk

__all__ = ["repair"]


def repair(found: WalkCheckup, out: str | Path, *, progress: Progress | None = None) -> Repaired:
    """Write a copy in which everything that is safe to mend is mended.

    Sequences that cannot be read are left out, and so are those that stand there twice: the second one if both are of
    one person, both if they are of two, since nobody can say whose walk it is. Empty frames are left out of their
    sequences, as the field does. The partition names only persons that are there. What a person must decide, such as
    a missing gallery or two people in a picture, stays as it is. What was done stands in ``changes.json`` of the copy.

    Parameters
    ----------
    found
        From :func:`~fewer.tasks.gait.doctor.checkup`.
    out
        A folder that does not exist yet.

    Raises
    ------
    FewerError
        When the folder exists, or nothing is left; then nothing half-written stays.
    """
    out, data = Path(out), found.data
    bad = {f.case: f.text for f in found.findings if f.check in LEFT_OUT and f.fix}
    holes = {f.case for f in found.findings if f.check == "empty"}
    keep = [walk for walk in data.walks if str(walk) not in bad]
    if not keep:
        raise FewerError(f"no sequence of {data.root} can be kept; see what is wrong: fewer doctor {data.root}")
    changed: list[str] = []
    with whole_copy(out) as part:
        with (progress or Silent()).stage("write", len(keep)) as stage:
            for walk in keep:
                frames = data.frames(walk)
                if str(walk) in holes:
                    gone = empty_frames(frames)
                    frames = frames[~gone]
                    changed.append(f"{walk}: {int(gone.sum())} empty frames left out")
                write_sequence(part, walk, np.ascontiguousarray(frames))
                stage.advance(1, str(walk))
        changed += _partition(data, part, keep)
        left_out = tuple(f"{name}: {text}" for name, text in bad.items())
        return Repaired(out, len(keep), tuple(changed), left_out, unit="sequences").note(part)


def _partition(data: GaitData, part: Path, keep: list[Walk]) -> list[str]:
    """Write who trains, who judges and what are probes, of those that are there; whom it no longer names."""
    if not data.partition:
        return []
    people = {walk.person for walk in keep}
    lists = {name: [p for p in data.partition[name] if p in people] for name in ("train", "test")}
    gone = sorted({p for name in lists for p in data.partition[name]} - people)
    lost = set(missing_probes(data, keep))
    probes = [name for name in data.partition.get("probes", ()) if name not in lost]
    write_partition(part, lists["train"], lists["test"], probes)
    return [f"the partition no longer names {p}" for p in [*gone, *sorted(lost)]]
