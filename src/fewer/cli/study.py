"""``fewer study``: collect people's feedback on how images look."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from fewer.cli.flags import Shared, flags_of, given
from fewer.core.errors import FewerError, near_match
from fewer.study.settings import StudySettings

__all__ = ["study"]

ACTIONS = ("new", "serve", "status", "export", "delete")

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
    host: str = "127.0.0.1",
    port: int = 8000,
    name: list[str] | None = None,
    https: Annotated[bool, Parameter(negative="")] = False,
    rater: str | None = None,
    settings: StudyFlags | None = None,
    shared: Shared | None = None,
) -> int:
    """Collect people's feedback on how images look: make a study, serve it, see how it goes, export what was written.

    Every answer is on the disk before it is acknowledged. The server listens on this machine alone unless --host says
    otherwise.

    Parameters
    ----------
    action
        new, serve, status, export or delete (all that one rater gave).
    folder
        Of the study.
    images
        new: folder of photos.
    scores
        new: table file,score of known opinion scores.
    gold
        new: table file,level of images whose level 1 to 5 is known; they test attention.
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
    """
    from fewer.cli.show import as_json

    shared = shared or Shared()
    if action not in ACTIONS:
        raise FewerError(f"fewer study cannot {action!r}{near_match(action, ACTIONS)}")
    if shared.dry_run and action in ("new", "delete"):
        print(f"dry run: would {action} {rater or folder}, nothing is written")
        return 0
    if action == "serve":
        from fewer.study.serve import serve

        print(f"http://{host}:{port}/  (Ctrl-C stops; nothing is lost)", flush=True)
        serve(folder, host=host, port=port, names=tuple(name or ()), secure=https)
        return 0
    if action == "new":
        result = _new(folder, images, scores, gold, StudySettings.of(given(settings, Shared(seed=shared.seed))))
    else:
        result = _stored(action, folder, rater, shared.out)
    if shared.json:
        as_json(result.to_dict())
    else:
        print(*result.lines(), sep="\n")
    return 0


def _new(folder: str, images: str | None, scores: str | None, gold: str | None, settings: StudySettings) -> Any:
    from fewer.study.new import new_study, read_scores

    if images is None:
        raise FewerError(f"which photos? for example: fewer study new {folder} --images photos/")
    tables = {key: read_scores(path) for key, path in (("scores", scores), ("gold", gold)) if path}
    return new_study(folder, images, settings, **tables)


class _Deleted:
    """What a deletion did."""

    def __init__(self, rater: str, count: int) -> None:
        self.rater, self.count = rater, count

    def lines(self) -> list[str]:
        return [f"deleted {self.count} answers of {self.rater}; the code cannot be used any more"]

    def to_dict(self) -> dict[str, Any]:
        return {"rater": self.rater, "answers": self.count}


def _stored(action: str, folder: str, rater: str | None, out: str | None) -> Any:
    from pathlib import Path

    from fewer.core.files import atomic_write_text
    from fewer.study.export import export_study
    from fewer.study.owner import owner_page, status
    from fewer.study.store import Store

    store = Store(folder)
    if action == "export":
        return export_study(store, out or Path(folder) / "export", rater)
    if action == "delete":
        if rater is None:
            raise FewerError("whose answers? give --rater NAME; fewer study status lists the names")
        return _Deleted(rater, store.delete_rater(rater))
    if out is not None:
        Path(out).mkdir(parents=True, exist_ok=True)
        atomic_write_text(Path(out) / "study.html", owner_page(store).to_html())
    return status(store)
