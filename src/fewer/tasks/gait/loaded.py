"""What a trained gait network remembers of its training, and the persons that it has not seen."""

from __future__ import annotations

from pathlib import Path

from fewer.core.errors import FewerError
from fewer.models.spec import LoadedModel, is_model, load_model
from fewer.tasks.facts import facts_of
from fewer.tasks.gait.data.dataset import GaitData
from fewer.tasks.gait.networks import GaitNetwork
from fewer.tasks.gait.protocols.records import Walk

__all__ = ["network_of", "open_run", "unseen"]


def open_run(run: str | Path) -> LoadedModel:
    """The model of a run folder.

    Raises
    ------
    FewerError
        When it is no run of this task.
    """
    if not is_model(run):
        raise FewerError(f"{run} is no run folder with a model; train one: fewer train DATA --task gait --out {run}")
    loaded = load_model(str(run))
    network_of(loaded)
    return loaded


def network_of(loaded: LoadedModel) -> GaitNetwork:
    """The network of a run.

    Raises
    ------
    FewerError
        When the run is of another kind.
    """
    if not isinstance(loaded.model, GaitNetwork):
        raise FewerError(f"{loaded.name} holds no gait network; train one: fewer train DATA --task gait --out RUN")
    return loaded.model


def unseen(loaded: LoadedModel, data: GaitData) -> list[Walk]:
    """Sequences of persons that judge.

    Of the very data that the network was trained on, those of persons that did not train; of another one, its test
    set where it has a partition, else all.
    """
    split = facts_of(loaded, "gait").split
    if split is not None and split.is_of(data.root, {walk.person for walk in data.walks}):
        trained = set(split.train)
        return [walk for walk in data.walks if walk.person not in trained]
    return data.part("test") if data.partition else data.walks
