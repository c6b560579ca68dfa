"""Study: people's feedback on how images look, step by step."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewer.core.display import Told
from fewer.core.errors import FewerError, near_match
from fewer.core.files import as_path
from fewer.core.progress import Progress, usual_progress
from fewer.study.settings import StudySettings

if TYPE_CHECKING:
    from fewer.study.export import Exported
    from fewer.study.new import Made
    from fewer.study.owner import Status
    from fewer.tasks.quality.convert.build import Converted
    from fewer.tasks.quality.convert.endpoint import KeptWriter

__all__ = [
    "Deleted",
    "Records",
    "study_convert",
    "study_delete",
    "study_export",
    "study_new",
    "study_serve",
    "study_status",
]


@dataclass(frozen=True, repr=False)
class Records(Told):
    """Conversations that were written.

    Attributes
    ----------
    made
        The conversations.
    path
        Their file.
    images
        The folder of photos, where a study says it.
    """

    made: Converted
    path: Path
    images: Path | None = None

    def lines(self) -> list[str]:
        """What was made and what comes next."""
        photos = shlex.quote(str(self.images)) if self.images is not None else "PHOTOS"
        return [*self.made.lines(), f"next    fewer tune {shlex.quote(str(self.path))} --images {photos} --out run"]

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"records": str(self.path), **self.made.to_dict()}


@dataclass(frozen=True, repr=False)
class Deleted(Told):
    """What a deletion did.

    Attributes
    ----------
    rater
        Whose answers went.
    answers
        How many.
    """

    rater: str
    answers: int

    def lines(self) -> list[str]:
        """What is gone."""
        told = f"deleted {self.answers} answers of {self.rater}; the code cannot be used any more"
        return [told, "what was exported or copied before still holds them: export again, and delete old copies"]

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"rater": self.rater, "answers": self.answers}


def study_new(
    folder: str | Path,
    images: str | Path,
    *,
    scores: str | Path | None = None,
    gold: str | Path | None = None,
    only: str | Path | None = None,
    sample: int | None = None,
    settings: StudySettings | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Made:
    """Make a study: photos, reference images and a code for every rater.

    Parameters
    ----------
    folder
        Of the study.
    images
        Folder of photos.
    scores
        Table ``file,score`` of known opinion scores, or any with a heading that names their columns, such as those of
        KonIQ-10k.
    gold
        Table ``file,level`` of images whose level 1 to 5 is known; they test attention.
    only
        A list of the images to show, one name a line, or the ``queue.csv`` of :func:`fewer.select`.
    sample
        Show so many of the images in ``scores``, chosen so that their scores are spread evenly.
    progress
        Is told how many images were looked at.
    settings, **options
        See :class:`~fewer.study.settings.StudySettings`: one object, or single settings by name.

    Raises
    ------
    FewerError
        When photos or tables cannot be used.

    Examples
    --------
    >>> import fewer
    >>> print(*fewer.study_new("study/", "photos/", raters=12).lines(), sep="\\n")  # doctest: +SKIP
    """
    from fewer.study.new import new_study
    from fewer.study.tables import read_names, read_scores

    chosen = StudySettings.of({**(settings.model_dump() if settings is not None else {}), **options})
    read = {key: read_scores(table) for key, table in (("scores", scores), ("gold", gold)) if table}
    names = read_names(only) if only is not None else None
    if sample is not None:
        names = _spread(read.get("scores", {}), names, images, sample, chosen.seed)
    return new_study(folder, images, chosen, only=names, progress=progress or usual_progress(), **read)


def _spread(scores: dict[str, float], names: list[str] | None, images: str | Path, count: int, seed: int) -> list[str]:
    """Names of so many images of a folder whose scores are spread evenly."""
    import numpy as np

    from fewer.data.images import list_images
    from fewer.tasks.quality.baselines import flatten

    if not scores:
        raise FewerError("--sample spreads known scores evenly: give them with --scores TABLE")
    there = {path.relative_to(images).as_posix() for path in list_images(images)}
    known = [name for name in (scores if names is None else names) if name in scores and name in there]
    if not known:
        raise FewerError(f"no image of {images} has a score, such as {next(iter(scores))}; names must be the same")
    return [known[i] for i in flatten(np.array([scores[name] for name in known]), count, seed=seed)]


def study_serve(
    folder: str | Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    names: Sequence[str] = (),
    https: bool = False,
    images: str | Path | None = None,
    tell: Callable[[str], None] = print,
) -> None:
    """Serve a study to browsers until Ctrl-C; every answer is on the disk before it is acknowledged.

    Parameters
    ----------
    folder
        Of the study.
    host, port
        Where to listen; this machine alone by default.
    names
        Host names by which browsers call the server, besides localhost.
    https
        A server with HTTPS is in front.
    images
        Where the photos lie now, when they were moved; the study remembers it.
    tell
        Is told the address, and which photos are gone.

    Examples
    --------
    >>> import fewer
    >>> fewer.study_serve("study/")  # doctest: +SKIP
    """
    from fewer.study.serve import serve

    serve(folder, host=host, port=port, names=tuple(names), secure=https, images=images, tell=tell)


def study_status(folder: str | Path, *, out: str | Path | None = None) -> Status:
    """How far a study is; with ``out``, its owner's page goes into that folder.

    Parameters
    ----------
    folder
        Of the study.
    out
        A folder for the page; by default none is written.

    Examples
    --------
    >>> import fewer
    >>> print(*fewer.study_status("study/").lines(), sep="\\n")  # doctest: +SKIP
    """
    from fewer.core.files import atomic_write_text
    from fewer.study.owner import owner_page, status
    from fewer.study.store import Store

    store = Store(folder)
    if out is not None:
        place = as_path(out)
        place.mkdir(parents=True, exist_ok=True)
        atomic_write_text(place / "study.html", owner_page(store).to_html())
    return status(store)


def study_export(
    folder: str | Path, out: str | Path | None = None, *, rater: str | None = None, method: str = "p910"
) -> Exported:
    """Write what a study collected, without names, or all of one rater.

    Parameters
    ----------
    folder
        Of the study.
    out
        By default ``export`` in it.
    rater
        Everything of this one instead.
    method
        How ``scores.csv`` is made of levels; see :data:`fewer.study.scores.SCORES`.

    Examples
    --------
    >>> import fewer
    >>> fewer.study_export("study/", "answers/")  # doctest: +SKIP
    """
    from fewer.study.export import export_study
    from fewer.study.store import Store

    return export_study(Store(folder), out or as_path(folder) / "export", rater, method)


def study_delete(folder: str | Path, rater: str) -> Deleted:
    """Delete all answers of one rater, who asked for it.

    Parameters
    ----------
    folder
        Of the study.
    rater
        The rater's name, as in :func:`fewer.study_status`.

    Examples
    --------
    >>> import fewer
    >>> fewer.study_delete("study/", "rater-07").answers  # doctest: +SKIP
    41
    """
    from fewer.study.store import Store

    return Deleted(rater, Store(folder).delete_rater(rater))


def study_convert(
    source: str | Path,
    out: str | Path | None = None,
    *,
    writer: str = "rules",
    writer_model: str | None = None,
    evaluation: Sequence[str | Path] = (),
    pairs: int = 0,
    seed: int = 0,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Records:
    """Turn what people wrote into conversations for :func:`fewer.tune`.

    Parameters
    ----------
    source
        A study, its ``pathways.json``, a table ``file,score`` or ``file,score,deviation`` of opinions, which becomes
        rating words (Q-Align, DeQA-Score), or the ``pairs.csv`` of an export.
    out
        The file to write; by default beside the source.
    writer
        Who makes questions of the texts: ``rules``, ``smollm2`` (SmolLM2-135M), a folder with a language model of
        transformers, or an endpoint of OpenAI's protocol, up to ``/v1``, whose key is read from ``OPENAI_API_KEY``.
    writer_model
        The model's name at that endpoint.
    evaluation
        Files of questions, descriptions, opinions or pairs whose images may not train.
    pairs
        So many pairs of images are drawn, and conversations about two images at once are made of what was written
        about each (Co-Instruct).
    seed
        Of every random choice.
    overwrite
        Whether a file that is there may be replaced.
    progress
        Told how far it is; by default a bar in a terminal or a notebook.

    Raises
    ------
    FewerError
        When there is no text, or the file is there.

    Examples
    --------
    >>> import fewer
    >>> fewer.study_convert("study/", "records.json").path  # doctest: +SKIP
    PosixPath('records.json')
    """
    from fewer.study.export import pathways_of, read_pathways
    from fewer.study.store import Store
    from fewer.study.tables import is_table
    from fewer.tasks.quality.convert.build import convert, evaluation_images

    if pairs < 0:
        raise FewerError(f"--pairs {pairs} is no number of pairs; give 0 or more")
    place, banned = as_path(source), evaluation_images(evaluation)
    if is_table(place):
        made = _table(place).without(banned)
        return Records(made, made.save(_free(out or place.with_suffix(".json"), overwrite)))
    store = None if place.is_file() else Store(place)
    texts = read_pathways(place) if store is None else pathways_of(store)
    if not texts:
        raise FewerError(f"{source} holds no text yet; fewer study status says what was collected")
    path = _free(out or (place.parent if place.is_file() else place) / "records.json", overwrite)
    more: dict[str, Any] = {"pairs": pairs, "seed": seed, "progress": progress or usual_progress()}
    chosen = _writer(writer, writer_model, path)
    made = convert(texts, chosen, evaluation=banned, **more)
    saved = made.save(path)
    if chosen is not None:
        chosen.done()
    return Records(made, saved, None if store is None else store.images)


def _free(out: str | Path, overwrite: bool) -> Path:
    path = as_path(out)
    if path.exists() and not overwrite:
        raise FewerError(f"{path} exists already; give another --out FILE, or --overwrite")
    return path


def _writer(writer: str, model: str | None, path: Path) -> KeptWriter | None:
    """Who makes questions of texts, with a memory beside the file that is made; None for rules."""
    from fewer.tasks.quality.convert.endpoint import EndpointWriter, KeptWriter
    from fewer.tasks.quality.convert.writers import local_writer

    if writer == "rules":
        return None
    memory = path.with_name(f"{path.name}.answers.jsonl")
    if Path(writer).is_dir() or writer == "smollm2":
        return KeptWriter(local_writer(writer), memory)
    if "://" not in writer:
        near = near_match(writer, ("rules", "smollm2"))
        raise FewerError(f"the writer {writer!r} is neither a folder nor an endpoint (http://HOST/v1){near}")
    if model is None:
        raise FewerError(f"which model of {writer} shall write? give --writer-model NAME")
    return KeptWriter(EndpointWriter(writer, model, os.environ.get("OPENAI_API_KEY", "")), memory)


def _table(table: Path) -> Converted:
    """Rating words from a table of opinions, or comparisons from one of pairs."""
    from fewer.study.tables import read_opinions
    from fewer.tasks.quality.convert.build import Converted
    from fewer.tasks.quality.convert.compare import holds_pairs, pair_records, read_pairs
    from fewer.tasks.quality.records import qalign_records, soft_records

    if holds_pairs(table):
        pairs, same = read_pairs(table)
        dropped = {"a pair that looks the same": same} if same else {}
        return Converted(tuple(pair_records(pairs)), dropped, "votes on pairs", 0.0)
    found = read_opinions(table)
    scores, wide = found.scores, found.deviations
    if wide and len(wide) < len(scores):
        raise FewerError(f"{table}: {len(scores) - len(wide)} images have no deviation; give it for all or for none")
    soft = {name: (score, wide[name]) for name, score in scores.items()} if wide else {}
    records = soft_records(soft) if wide else qalign_records(scores)
    writer = "rating words, soft" if wide else "rating words"
    return Converted(tuple(records), {}, f"{writer}, from {found.note}" if found.note else writer, 0.0)
