"""Verbs whose ``--out`` is something that is there: an input, a folder of another kind, a file, a link."""

from __future__ import annotations

import contextlib
import io
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.fuzz import guard
from tests.fuzz.task_targets import images_of_run, net_of_run

__all__ = ["OUT"]

PLACES = (
    "new", "pool", "pool/new", "run", "run/new", "run/plan.json", "run/model.safetensors", "queue", "queue/new",
    "study", "labels", "labels/coco.json", "features.npy", ".", "circuit", "keys", "exported", "profile.json",
    "pictures", "sets/masks", "sets/nnunet", "sets/nnunet/labelsTr", "trained", "link", "linked/new", "dangling",
    "empty",
)  # fmt: skip
TASKS = ("classify", "segment", "detect3d", "gait")


def _of_task(verb: str) -> Callable[[Path, Path, random.Random, dict[str, Any]], Any]:
    def run(work: Path, out: Path, draw: random.Random, more: dict[str, Any]) -> None:
        import fewer
        from tests.support.tiny_tasks import TINY

        task = draw.choice([one for one in TASKS if (work / "trained" / one).is_dir()])
        place = work / "trained" / task
        if verb == "predict":
            fewer.predict(place / "run", place / "data", task=task, out=out, **more)
        elif verb == "eval":
            more.pop("resume", None)
            fewer.evaluate(place / "run", place / "data", task=task, out=out, **more)
        else:
            chosen = dict(TINY[task].settings)
            if task == "classify":
                chosen["network"] = "resnet20"
            fewer.train(place / "data", task=task, out=out, **chosen, **more)

    return run


def _apply(work: Path, out: Path, draw: random.Random, more: dict[str, Any]) -> None:
    import fewer

    fewer.apply(work / "run", model=net_of_run(), images=images_of_run(), out=out, **more)


def _recover(work: Path, out: Path, draw: random.Random, more: dict[str, Any]) -> None:
    import fewer

    given: dict[str, Any] = {"images": images_of_run(), "model": net_of_run(), "settings": {"batch": 4}}
    fewer.recover(work / "run", steps=1, out=out, **given, **more)


def _export(work: Path, out: Path, draw: random.Random, more: dict[str, Any]) -> None:
    import fewer

    more.pop("resume", None)
    fewer.export(work / "run", draw.choice(["torch", "huggingface"]), out=out, **more)


def _select(work: Path, out: Path, draw: random.Random, more: dict[str, Any]) -> None:
    import fewer

    to = draw.choice([("masks",), ("labelstudio", "coco", "cvat", "masks")])
    fewer.select(work / "pool", "labels=2", features=work / "features.npy", out=out, to=to, **more)


def _words(*words: str) -> Callable[[Path, Path, random.Random, dict[str, Any]], Any]:
    def run(work: Path, out: Path, draw: random.Random, more: dict[str, Any]) -> None:
        from fewer.cli.main import main

        said, flags = io.StringIO(), [f"--{name}" for name in more]
        with contextlib.chdir(work), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
            code = main([*words, "--out", str(out), *flags])
        if code not in (0, 2, 3):
            raise AssertionError(f"exit {code}: fewer {words} --out {out} {flags}: {said.getvalue()[-600:]}")

    return run


def _study_new(work: Path, out: Path, draw: random.Random, more: dict[str, Any]) -> None:
    from fewer.study.new import new_study

    new_study(out, work / "pool")


def _circuit(work: Path, out: Path, draw: random.Random, more: dict[str, Any]) -> None:
    import torch
    from torch import nn

    from fewer.verbs.private import private_compile

    torch.manual_seed(0)
    more.pop("resume", None)
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 4), nn.ReLU(), nn.Linear(4, 3)).eval()
    private_compile(net, torch.randn(20, 1, 4, 4), out, **more)


VERBS: dict[str, Callable[[Path, Path, random.Random, dict[str, Any]], Any]] = {
    "predict": _of_task("predict"), "eval": _of_task("eval"), "train": _of_task("train"), "apply": _apply,
    "recover": _recover, "export": _export, "select": _select, "study-new": _study_new, "circuit": _circuit,
    "study-export": _words("study", "export", "study"), "keys": _words("private", "keys", "circuit"),
    "doctor": _words("doctor", "sets/nnunet", "--fix"), "status": _words("study", "status", "study"),
    "plan": _words("plan", "run", "--budget", "weights=60%"),
}  # fmt: skip
IN_PLACE = {"plan": "run", "apply": "run", "recover": "run", "study-export": "study", "status": "study"}
"""What a verb may change in any case."""
ANEW = {"apply": "run", "recover": "run", "train": "run", "select": "queue", "circuit": "circuit", "export": "exported"}
"""What may be replaced by another of its kind, where that is asked for."""


def _out(work: Path, draw: random.Random) -> None:
    verb, name = draw.choice(sorted(VERBS)), draw.choice(PLACES)
    more: dict[str, Any] = draw.choice([{}, {}, {"overwrite": True}, {"resume": True}])
    (work / "elsewhere").mkdir()
    (work / "elsewhere" / "kept").write_text("precious")
    (work / "link").symlink_to("elsewhere")
    (work / "linked").symlink_to("elsewhere")
    (work / "dangling").symlink_to("not-there")
    (work / "empty").mkdir()
    place = work / name
    if more and name == ANEW.get(verb):
        guard.MAY.add(name)
    if name.startswith("link"):
        guard.MAY.add("elsewhere/*")  # the user has typed the link
    if verb in IN_PLACE:
        guard.MAY.add(IN_PLACE[verb])
    guard.MAY.add(f"{name}/*" if place.is_dir() else name if not place.exists() else "new")
    VERBS[verb](work, place, draw, dict(more))


OUT: dict[str, Callable[[Path, random.Random], None]] = {"out": _out}
