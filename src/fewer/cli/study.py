"""``fewer study``: collect people's feedback on how images look."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from fewer.cli.flags import Shared, flags_of, given
from fewer.core.errors import FewerError, near_match
from fewer.study.settings import StudySettings

__all__ = ["study"]

ACTIONS = ("new", "serve", "status", "export", "convert", "delete")

if TYPE_CHECKING:
    StudyFlags = Any
else:
    StudyFlags = flags_of(StudySettings, "StudyFlags")


def study(
    action: str,
    folder: str,
    /,
    *,
    images: str | None = None,
    scores: str | None = None,
    gold: str | None = None,
    only: str | None = None,
    sample: int | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    name: list[str] | None = None,
    https: Annotated[bool, Parameter(negative="")] = False,
    rater: str | None = None,
    method: str = "p910",
    writer: str = "rules",
    writer_model: str | None = None,
    evaluation: list[str] | None = None,
    pairs: int = 0,
    settings: StudyFlags | None = None,
    shared: Shared | None = None,
) -> int:
    """Collect people's feedback on how images look: make a study, serve it, see how it goes, export and convert texts.

    Every answer is on the disk before it is acknowledged. The server listens on this machine alone unless --host says
    otherwise.

    Parameters
    ----------
    action
        new, serve, status, export, convert (texts into conversations for fewer tune) or delete (all of one rater).
    folder
        Of the study; convert also takes a pathways.json, or a table file,score or file,score,deviation of opinions,
        which becomes rating words (Q-Align, DeQA-Score), or the pairs.csv of an export.
    images
        new: folder of photos.
    scores
        new: table file,score of known opinion scores.
    gold
        new: table file,level of images whose level 1 to 5 is known; they test attention.
    only
        new: a list of the images to show, one name a line, or the queue.csv of fewer select.
    sample
        new: show so many of the images in --scores, chosen so that their scores are spread evenly.
    host
        serve: where to listen.
    port
        serve: where to listen.
    name
        serve: host name by which browsers call the server, besides localhost; may be repeated.
    https
        serve: a server with HTTPS is in front.
    rater
        export: all of one rater instead; delete: whose answers go.
    method
        export: how scores.csv is made of levels: p910 (ITU-T P.910), mos (means), bias-removed (P.913) or bt500.
    writer
        convert: who makes questions of the texts: rules, smollm2 (SmolLM2-135M), a folder with a language model of
        transformers, or an endpoint of OpenAI's protocol, up to /v1, whose key is read from OPENAI_API_KEY.
    writer_model
        convert: the model's name at that endpoint.
    evaluation
        convert: a file of questions, descriptions or opinions whose images may not train; may be repeated.
    pairs
        convert: draw so many pairs of images, and make conversations about two images at once of what was written
        about each (Co-Instruct).
    """
    from fewer.cli.show import as_json

    shared = shared or Shared()
    if action not in ACTIONS:
        raise FewerError(f"fewer study cannot {action!r}{near_match(action, ACTIONS)}")
    if shared.dry_run and action in ("new", "convert", "delete"):
        print(f"dry run: would {action} {rater or folder}, nothing is written")
        return 0
    if action == "serve":
        from fewer.study.serve import serve

        print(f"http://{host}:{port}/  (Ctrl-C stops; nothing is lost)", flush=True)
        serve(folder, host=host, port=port, names=tuple(name or ()), secure=https)
        return 0
    if action == "new":
        chosen = StudySettings.of(given(settings, Shared(seed=shared.seed)))
        result = _new(folder, images, {"scores": scores, "gold": gold}, only, sample, chosen)
    elif action == "convert":
        result = _convert(folder, writer, writer_model, evaluation or [], pairs, shared)
    else:
        result = _stored(action, folder, rater, method, shared.out)
    if shared.json:
        as_json(result.to_dict())
    else:
        print(*result.lines(), sep="\n")
    return 0


def _new(
    folder: str,
    images: str | None,
    tables: dict[str, str | None],
    only: str | None,
    sample: int | None,
    settings: StudySettings,
) -> Any:
    from fewer.study.new import new_study, read_names, read_scores

    if images is None:
        raise FewerError(f"which photos? for example: fewer study new {folder} --images photos/")
    read: dict[str, Any] = {key: read_scores(path) for key, path in tables.items() if path}
    names = read_names(only) if only is not None else None
    if sample is not None:
        names = _sampled(read.get("scores", {}), names, sample, settings.seed)
    return new_study(folder, images, settings, only=names, **read)


def _sampled(scores: dict[str, float], names: list[str] | None, count: int, seed: int) -> list[str]:
    """Names of so many images whose scores are spread evenly."""
    import numpy as np

    from fewer.tasks.quality.baselines import flatten

    known = [name for name in (scores if names is None else names) if name in scores]
    if not known:
        raise FewerError("--sample spreads known scores evenly: give them with --scores TABLE")
    return [known[i] for i in flatten(np.array([scores[name] for name in known]), count, seed=seed)]


class _Records:
    """What a conversion wrote."""

    def __init__(self, made: Any, path: Any) -> None:
        self.made, self.path = made, path

    def lines(self) -> list[str]:
        return [*self.made.lines(), f"next    fewer tune {self.path} --images PHOTOS --out run"]

    def to_dict(self) -> dict[str, Any]:
        return {"records": str(self.path), **self.made.to_dict()}


def _convert(
    folder: str, writer: str, model: str | None, evaluation: list[str], pairs: int, shared: Shared
) -> _Records:
    """Texts of a study, or of a file, into conversations."""
    from pathlib import Path

    from fewer.cli.progress import terminal_progress
    from fewer.study.export import pathways_of, read_pathways
    from fewer.study.store import Store
    from fewer.tasks.quality.convert.build import convert, evaluation_images

    if pairs < 0:
        raise FewerError(f"--pairs {pairs} is no number of pairs; give 0 or more")
    place, banned = Path(folder), evaluation_images(evaluation)
    if place.suffix == ".csv":
        return _table(place, banned, shared)
    texts = read_pathways(place) if place.is_file() else pathways_of(Store(folder))
    if not texts:
        raise FewerError(f"{folder} holds no text yet; fewer study status says what was collected")
    out = _free((place.parent if place.is_file() else place) / "records.json", shared)
    more: dict[str, Any] = {"seed": shared.seed or 0, "pairs": pairs, "progress": terminal_progress()}
    made = convert(texts, _writer(writer, model), evaluation=banned, **more)
    return _Records(made, made.save(out))


def _free(usual: Any, shared: Shared) -> Any:
    """Where conversations go; nothing is written over unasked."""
    from pathlib import Path

    out = Path(shared.out or usual)
    if out.exists() and not shared.overwrite:
        raise FewerError(f"{out} exists already; give another --out FILE, or --overwrite")
    return out


def _writer(writer: str, model: str | None) -> Any:
    """Who makes the questions; None for rules."""
    import os
    from pathlib import Path

    from fewer.tasks.quality.convert.writers import EndpointWriter, local_writer

    if writer == "rules":
        return None
    if Path(writer).is_dir() or writer == "smollm2":
        return local_writer(writer)
    if "://" not in writer:
        near = near_match(writer, ("rules", "smollm2"))
        raise FewerError(f"the writer {writer!r} is neither a folder nor an endpoint (http://HOST/v1){near}")
    if model is None:
        raise FewerError(f"which model of {writer} shall write? give --writer-model NAME")
    return EndpointWriter(writer, model, os.environ.get("OPENAI_API_KEY", ""))


def _table(table: Any, banned: set[str], shared: Shared) -> _Records:
    """Rating words from a table of opinions, or comparisons from one of pairs."""
    from fewer.study.new import read_scores
    from fewer.tasks.quality.convert.build import Converted
    from fewer.tasks.quality.convert.compare import holds_pairs, pair_records, read_pairs
    from fewer.tasks.quality.records import qalign_records, soft_records

    out = _free(table.with_suffix(".json"), shared)
    if holds_pairs(table):
        pairs, same = read_pairs(table)
        records, what = pair_records(pairs), "votes on pairs"
        dropped = {"a pair that looks the same": same} if same else {}
    else:
        scores, wide = read_scores(table), read_scores(table, column=2)
        if wide and len(wide) < len(scores):
            raise FewerError(f"{table}: {len(scores) - len(wide)} images have no deviation; give it for all or none")
        soft = {name: (score, wide[name]) for name, score in scores.items()} if wide else {}
        records, dropped = soft_records(soft) if wide else qalign_records(scores), {}
        what = "rating words, soft" if wide else "rating words"
    made = Converted(tuple(records), dropped, what, 0.0).without(banned)
    return _Records(made, made.save(out))


class _Deleted:
    """What a deletion did."""

    def __init__(self, rater: str, count: int) -> None:
        self.rater, self.count = rater, count

    def lines(self) -> list[str]:
        return [f"deleted {self.count} answers of {self.rater}; the code cannot be used any more"]

    def to_dict(self) -> dict[str, Any]:
        return {"rater": self.rater, "answers": self.count}


def _stored(action: str, folder: str, rater: str | None, method: str, out: str | None) -> Any:
    from pathlib import Path

    from fewer.core.files import atomic_write_text
    from fewer.study.export import export_study
    from fewer.study.owner import owner_page, status
    from fewer.study.store import Store

    store = Store(folder)
    if action == "export":
        return export_study(store, out or Path(folder) / "export", rater, method)
    if action == "delete":
        if rater is None:
            raise FewerError("whose answers? give --rater NAME; fewer study status lists the names")
        return _Deleted(rater, store.delete_rater(rater))
    if out is not None:
        Path(out).mkdir(parents=True, exist_ok=True)
        atomic_write_text(Path(out) / "study.html", owner_page(store).to_html())
    return status(store)
