"""``fewer study``: collect people's feedback on how images look."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from fewer.cli.flags import Shared, flags_of, given, refuse_for
from fewer.core.errors import FewerError, near_match
from fewer.study.settings import StudySettings

__all__ = ["study"]

ACTIONS = ("new", "serve", "status", "export", "convert", "delete")

_OWNERS = {
    "images": "new serve", "host": "serve", "port": "serve", "name": "serve", "https": "serve",
    "rater": "export delete", "method": "export",
    "writer": "convert", "writer_model": "convert", "evaluation": "convert", "pairs": "convert",
}  # fmt: skip
"""Flags of other actions than ``new``."""

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
    host: str | None = None,
    port: Annotated[int | None, Parameter(show_default=False)] = None,
    name: Annotated[list[str] | None, Parameter(negative="")] = None,
    https: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    rater: str | None = None,
    method: str | None = None,
    writer: str | None = None,
    writer_model: str | None = None,
    evaluation: Annotated[list[str] | None, Parameter(negative="")] = None,
    pairs: Annotated[int | None, Parameter(show_default=False)] = None,
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
        new: folder of photos; serve: where they lie now, when they were moved.
    scores
        new: table file,score of known opinion scores, or one whose heading names their columns, such as KonIQ-10k's.
    gold
        new: table file,level of images whose level 1 to 5 is known; they test attention.
    only
        new: a list of the images to show, one name a line, or the queue.csv of fewer select.
    sample
        new: show so many of the images in --scores, chosen so that their scores are spread evenly.
    host
        serve: where to listen. [127.0.0.1]
    port
        serve: where to listen. [8000]
    name
        serve: host name by which browsers call the server, besides localhost; may be repeated.
    https
        serve: a server with HTTPS is in front.
    rater
        export: all of one rater instead; delete: whose answers go.
    method
        export: how scores.csv is made of levels: p910 (ITU-T P.910), mos (means), bias-removed (P.913) or bt500. [p910]
    writer
        convert: who makes questions of the texts: rules, smollm2 (SmolLM2-135M), a folder with a language model of
        transformers, or an endpoint of OpenAI's protocol, up to /v1, whose key is read from OPENAI_API_KEY. [rules]
    writer_model
        convert: the model's name at that endpoint.
    evaluation
        convert: a file of questions, descriptions or opinions whose images may not train; may be repeated.
    pairs
        convert: draw so many pairs of images, and make conversations about both (Co-Instruct) of what was written about
        each.
    """
    asked = {flag: value for flag, value in locals().items() if flag not in ("action", "folder", "settings", "shared")}
    from fewer.cli.progress import terminal_progress
    from fewer.cli.show import say_would
    from fewer.verbs import study as verbs

    shared = shared or Shared()
    if action not in ACTIONS:
        raise FewerError(f"fewer study cannot {action!r}{near_match(action, ACTIONS)}")
    asked |= given(settings)
    refuse_for(f"fewer study {action}", dict.fromkeys(asked, "new") | _OWNERS, asked)
    if shared.dry_run and (action != "status" or shared.out is not None):
        return say_would([f"would {action} {rater or folder}"], shared.json, action=action, folder=folder)
    if shared.out is not None and action in ("new", "serve", "delete"):
        raise FewerError(f"fewer study {action} writes into {folder} itself; leave --out {shared.out} out")
    if action == "serve":
        how: dict[str, Any] = {"names": tuple(name or ()), "https": https, "images": images}
        verbs.study_serve(
            folder, host=host or "127.0.0.1", port=8000 if port is None else port, tell=_telling(shared.json), **how
        )
        return 0
    if action == "new":
        if images is None:
            raise FewerError(f"which photos? for example: fewer study new {folder} --images photos/")
        chosen = StudySettings.of(given(settings, Shared(seed=shared.seed)))
        tables: dict[str, Any] = {"scores": scores, "gold": gold, "only": only, "sample": sample}
        result: Any = verbs.study_new(folder, images, settings=chosen, progress=terminal_progress(), **tables)
    elif action == "convert":
        how = {"writer": writer or "rules", "writer_model": writer_model, "evaluation": evaluation or ()}
        how |= {"seed": shared.seed or 0, "overwrite": shared.overwrite, "progress": terminal_progress()}
        result = verbs.study_convert(folder, shared.out, pairs=pairs or 0, **how)
    else:
        result = _stored(action, folder, rater, method or "p910", shared.out)
    _show(result, shared.json)
    return 0


def _show(result: Any, in_json: bool) -> None:
    from fewer.cli.show import as_json

    if in_json:
        as_json(result.to_dict())
    else:
        print(*result.lines(), sep="\n")


def _telling(in_json: bool) -> Callable[[str], None]:
    """Says where a server listens at once, as JSON where that is wanted; then all else goes to the error stream."""
    from fewer.cli.show import as_json

    def tell(text: str) -> None:
        if not in_json:
            print(text, flush=True)
        elif text.startswith("http"):
            as_json({"url": text.split()[0]})
            sys.stdout.flush()
        else:
            print(text, file=sys.stderr, flush=True)

    return tell


def _stored(action: str, folder: str, rater: str | None, method: str, out: str | None) -> Any:
    """Actions on what a study has collected."""
    from fewer.verbs import study as verbs

    if action == "export":
        return verbs.study_export(folder, out, rater=rater, method=method)
    if action == "delete":
        if rater is None:
            raise FewerError("whose answers? give --rater NAME; fewer study status lists the names")
        return verbs.study_delete(folder, rater)
    return verbs.study_status(folder, out=out)
