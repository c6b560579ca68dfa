"""What is killed by ``tests/fuzz/kills.py``: models, labels, trainings and adaptation."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from tests.fuzz.verb import Verb, digest

__all__ = ["MAIN", "images", "net", "pool", "sensed"]


def net() -> Any:
    import torch
    from torch import nn

    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 4))


def images() -> Any:
    import torch

    return torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def quick_settings() -> Any:
    from fewer.engine.settings import Settings

    few: dict[str, Any] = {"calibration": 6, "heldout": 4, "sensing": 2, "additivity": 0, "sparsities": (0.5, 0.8)}
    return Settings(**few, pattern="block:2x4", baselines=(), workers=1, allocator="dp")


def _compress(folder: Path, resume: bool) -> None:
    import fewer

    fewer.compress(net(), images(), "weights=50%", out=folder / "run", settings=quick_settings(), resume=resume)


def sensed(folder: Path) -> None:
    """A finished run."""
    _compress(folder, False)


def _again(folder: Path, resume: bool) -> None:
    """A finished run is replaced by one of another budget."""
    import fewer

    more = {"resume": True} if resume else {"overwrite": True}
    fewer.compress(net(), images(), "weights=30%", out=folder / "run", settings=quick_settings(), **more)


def _apply(folder: Path, resume: bool) -> None:
    import fewer

    plan = fewer.plan(folder / "run", "weights=40%")
    fewer.apply(folder / "run", plan, model=net(), images=images())


def _recover(folder: Path, resume: bool) -> None:
    import fewer

    fewer.recover(folder / "run", steps=4, images=images(), model=net(), settings={"batch": 4}, resume=resume)


def pool(folder: Path) -> None:
    from PIL import Image

    (folder / "pool").mkdir()
    for index in range(12):
        pixels = np.random.default_rng(index).integers(0, 255, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).save(folder / "pool" / f"{index:02}.png")


def _select(folder: Path, resume: bool) -> None:
    import fewer

    more: dict[str, Any] = {"features": net(), "backend": "serial", "batch": 4, "input_size": 8}
    fewer.select(folder / "pool", "labels=4", out=folder / "queue", resume=resume, **more)


def _first_round(folder: Path) -> None:
    pool(folder)
    _select(folder, False)
    names = [one["name"] for one in json.loads((folder / "queue" / "plan.json").read_text())["queue"]]
    (folder / "back.csv").write_text("name,label\n" + "".join(f"{name},a\n" for name in names[:2]))


def _second_round(folder: Path, resume: bool) -> None:
    import fewer
    from fewer.core.errors import FewerError

    more: dict[str, Any] = {"features": net(), "backend": "serial", "batch": 4}
    labels = folder / "back.csv"
    try:
        fewer.select(None, "labels=3", out=folder / "queue", labels=labels, proceed=True, resume=resume, **more)
    except FewerError as error:  # killed before the round was noted as begun, or after it was done
        if not resume or "is finished" not in str(error):
            raise
        if len(json.loads((folder / "queue" / "plan.json").read_text())["rounds"]) == 1:
            fewer.select(None, "labels=3", out=folder / "queue", labels=labels, proceed=True, **more)


def _chosen(folder: Path) -> Any:
    plan = json.loads((folder / "queue" / "plan.json").read_text())
    rows = (folder / "queue" / "queue.csv").read_text()
    # round.json only notes that a round was begun
    names = sorted(p.name for p in (folder / "queue").iterdir() if p.name[0] != "." and p.name != "round.json")
    return (
        names,
        [(one["name"], one.get("round")) for one in plan["queue"]],
        plan["labelled"],
        len(plan["rounds"]),
        rows,
    )


def _train(name: str) -> Verb:
    from tests.support.tiny_tasks import TINY

    tiny = TINY[name]

    def prepare(folder: Path) -> None:
        made = tiny.tiny_data(folder)
        (folder / "where.txt").write_text(made.relative_to(folder).as_posix())

    def work(folder: Path, resume: bool) -> None:
        import fewer

        chosen = {k: v.format(folder=folder) if isinstance(v, str) else v for k, v in tiny.settings.items()}
        if name == "classify":
            chosen["network"] = "resnet20"
        data = folder / (folder / "where.txt").read_text()
        fewer.train(data, task=name, out=folder / "run", resume=resume, **chosen)

    return Verb(prepare, work, digest("run", "model.safetensors"))


def _domains(folder: Path) -> None:
    from tests.adaptation.domains import write_domains

    write_domains(folder)


def _adapt(folder: Path, resume: bool) -> None:
    from fewer.cli.main import main
    from fewer.core.errors import FewerError
    from tests.adaptation.domains import SMALL

    words = [f"--{key.replace('_', '-')}={value}" for key, value in SMALL.items()]
    more = ["--resume"] if resume else []
    places = [str(folder / "source"), str(folder / "target"), "--out", str(folder / "run")]
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        code = main(["adapt", *places, *words, *more])
    if code:
        raise FewerError(said.getvalue())


def _whole(folder: Path) -> Any:
    from fewer.core.run import RunFolder

    RunFolder.open(folder / "run")
    return digest("run", "model.safetensors", "plan.json")(folder)


_RUN = digest("run", "model.safetensors", "plan.json", "curves.npz")

MAIN: dict[str, Verb] = {
    "compress": Verb(lambda folder: None, _compress, _RUN),
    "compress-overwrite": Verb(sensed, _again, _RUN, _whole),
    "apply": Verb(sensed, _apply, digest("run", "model.safetensors", "plan.json")),
    "recover": Verb(sensed, _recover, digest("run", "model.safetensors")),
    "select": Verb(pool, _select, _chosen),
    "select-continue": Verb(_first_round, _second_round, _chosen),
    **{f"train-{name}": _train(name) for name in ("segment", "classify", "detect3d", "gait", "disc")},
    "adapt": Verb(_domains, _adapt, digest("run", "model.safetensors")),
}
"""Verbs that can go on, and those of which nothing is lost either."""
