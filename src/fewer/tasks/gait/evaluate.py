"""Evaluate a trained run by a protocol, and the quality that a compression shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from fewer.core.errors import FewerError
from fewer.core.progress import Progress
from fewer.core.staging import write_together
from fewer.models.spec import LoadedModel
from fewer.tasks.folders import check_out, device_of, make_folder
from fewer.tasks.gait.data.dataset import GaitData, open_data, refuse_names
from fewer.tasks.gait.embed import embed_walks
from fewer.tasks.gait.loaded import network_of, open_run, unseen
from fewer.tasks.gait.pages import evaluation_page
from fewer.tasks.gait.protocols import open_protocol, protocol_for
from fewer.tasks.gait.protocols.grew import submission
from fewer.tasks.gait.protocols.records import Walk
from fewer.tasks.gait.protocols.scores import Scores
from fewer.tasks.gait.settings import EvaluateSettings

__all__ = ["GaitQuality", "evaluate", "quality"]


def evaluate(
    target: str | Path,
    data: str | Path,
    *,
    out: str | Path | None = None,
    settings: EvaluateSettings | None = None,
    overwrite: bool = False,
    device: str = "cpu",
    progress: Progress | None = None,
    command: str = "",
) -> Scores:
    """Score a run by a protocol.

    Parameters
    ----------
    target
        Run folder.
    data
        Sequences. If the run was trained on them, only persons that did not train are scored.
    out
        Folder for ``evaluation.json``, ``evaluation.csv`` and ``evaluation.html``; of GREW also ``submission.csv``.
    settings
        See :class:`~fewer.tasks.gait.settings.EvaluateSettings`.

    Raises
    ------
    FewerError
        When target and data do not fit each other, or the protocol does not fit the names.
    """
    settings = settings or EvaluateSettings()
    check_out(out, ("evaluation.json",), overwrite)
    loaded, opened = open_run(target), open_data(data)
    refuse_names(opened)
    model = network_of(loaded).to(device_of(device))
    walks = opened.walks if settings.all_data else unseen(loaded, opened)
    if not walks:
        raise FewerError(f"{data} has nobody that {target} was not trained on; give --all-data")
    if len({walk.person for walk in walks}) < 2:
        raise FewerError(f"only one person of {data} judges, so every match is right; add persons, or --all-data")
    embedded, skipped = embed_walks(model, opened, walks, progress=progress)
    probes = opened.partition.get("probes", ())
    auto = settings.protocol == "auto"
    protocol = protocol_for(embedded, probes) if auto else open_protocol(settings.protocol, probes)
    result: Scores = protocol(embedded).noting(skipped)
    if out is not None:
        title = f"{Path(target).name} on {opened.root.name}"
        page = evaluation_page(title, result, model, opened, skipped, command)
        texts = {".csv": result.to_csv(), ".html": page.to_html(), ".json": result.to_json()}
        files = {f"evaluation{suffix}": text for suffix, text in texts.items()}
        if any(walk.person == "probe" for walk in embedded.walks):
            files["submission.csv"] = submission(embedded)
        write_together(make_folder(out), files)
    return result


@dataclass(frozen=True)
class GaitQuality:
    """The quality of a gait network; see :class:`fewer.tasks.Quality`."""

    data: GaitData
    walks: tuple[Walk, ...]
    note: str
    lower_is_better: frozenset[str] = frozenset()

    def __call__(self, model: nn.Module) -> Mapping[str, float]:
        """Rank-1 and the other numbers of the protocol, percent."""
        found, _ = embed_walks(model, self.data, self.walks)
        protocol: Any = protocol_for(found, self.data.partition.get("probes", ()))
        return protocol(found).numbers


def quality(loaded: LoadedModel, folder: str | Path) -> GaitQuality:
    """How good gait networks are on persons of a folder that did not train.

    Raises
    ------
    FewerError
        When there is none.
    """
    network_of(loaded)
    data = open_data(folder)
    walks = unseen(loaded, data)
    people = {walk.person for walk in walks}
    if len(people) < 2:
        raise FewerError(f"{folder} has fewer than two persons that {loaded.name} was not trained on; give other data")
    return GaitQuality(data, tuple(walks), f"on {len(walks)} sequences of {len(people)} persons")
