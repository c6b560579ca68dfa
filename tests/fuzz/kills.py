"""Kill a whole verb before every one of its file operations: going on must give what never stopping gives.

Some points run with the tests. By hand, all of them::

    PYTHONPATH=src:. python tests/fuzz/kills.py            (every verb)
    PYTHONPATH=src:. python tests/fuzz/kills.py --only train-segment --every 5
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.kill import KILLED, killed_at, operations

__all__ = ["VERBS", "Verb", "check", "kill_points"]


@dataclass(frozen=True)
class Verb:
    """A verb that is killed.

    Where it says that the work is finished when it is to go on, the result must be whole as well.

    Attributes
    ----------
    prepare
        Writes into a folder what the work starts from, once.
    work
        ``work(folder, resume)`` does it in a copy of that folder.
    result
        What must be the same in the end.
    """

    prepare: Callable[[Path], None]
    work: Callable[[Path, bool], None]
    result: Callable[[Path], Any]


def _digest(*names: str) -> Callable[[Path], Any]:
    """Contents of some files of a run, and the names of all that a user sees."""

    def of(folder: Path) -> dict[str, str]:
        shown = sorted(p.relative_to(folder).as_posix() for p in (folder / "run").rglob("*") if p.is_file())
        shown = [name for name in shown if "/." not in name]
        return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names} | {
            "names": str(shown)
        }

    return of


def _goes_on(work: Callable[[Path, bool], None], folder: Path) -> None:
    from fewer.core.errors import FewerError

    try:
        work(folder, True)
    except FewerError as error:
        if "is finished" not in str(error):
            raise


def _net() -> Any:
    import torch
    from torch import nn

    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 4))


def _images() -> Any:
    import torch

    return torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def _settings() -> Any:
    from fewer.engine.settings import Settings

    few: dict[str, Any] = {"calibration": 6, "heldout": 4, "sensing": 2, "additivity": 0, "sparsities": (0.5, 0.8)}
    return Settings(**few, pattern="block:2x4", baselines=(), workers=1, allocator="dp")


def _compress(folder: Path, resume: bool) -> None:
    import fewer

    fewer.compress(_net(), _images(), "weights=50%", out=folder / "run", settings=_settings(), resume=resume)


def _again(folder: Path, resume: bool) -> None:
    """A finished run is replaced by one of another budget."""
    import fewer

    more = {"resume": True} if resume else {"overwrite": True}
    fewer.compress(_net(), _images(), "weights=30%", out=folder / "run", settings=_settings(), **more)


def _apply(folder: Path, resume: bool) -> None:
    import fewer

    plan = fewer.plan(folder / "run", "weights=40%")
    fewer.apply(folder / "run", plan, model=_net(), images=_images())


def _recover(folder: Path, resume: bool) -> None:
    import fewer

    fewer.recover(folder / "run", steps=4, images=_images(), model=_net(), settings={"batch": 4}, resume=resume)


def _pool(folder: Path) -> None:
    from PIL import Image

    (folder / "pool").mkdir()
    for index in range(12):
        pixels = np.random.default_rng(index).integers(0, 255, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).save(folder / "pool" / f"{index:02}.png")


def _select(folder: Path, resume: bool) -> None:
    import fewer

    more: dict[str, Any] = {"features": _net(), "backend": "serial", "batch": 4, "input_size": 8}
    fewer.select(folder / "pool", "labels=4", out=folder / "queue", resume=resume, **more)


def _first_round(folder: Path) -> None:
    _pool(folder)
    _select(folder, False)
    names = [one["name"] for one in json.loads((folder / "queue" / "plan.json").read_text())["queue"]]
    (folder / "back.csv").write_text("name,label\n" + "".join(f"{name},a\n" for name in names[:2]))


def _second_round(folder: Path, resume: bool) -> None:
    import fewer
    from fewer.core.errors import FewerError

    more: dict[str, Any] = {"features": _net(), "backend": "serial", "batch": 4}
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

    return Verb(prepare, work, _digest("run/model.safetensors"))


def _trained(folder: Path) -> None:
    import fewer
    from tests.support.tiny_tasks import TINY

    data = TINY["segment"].tiny_data(folder)
    fewer.train(data, task="segment", out=folder / "run", **TINY["segment"].settings)


def _predict(folder: Path, resume: bool) -> None:
    import fewer

    fewer.predict(folder / "run", folder / "lesions" / "images", out=folder / "masks", resume=resume)


def _masks(folder: Path) -> Any:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted((folder / "masks").glob("*.png"))}


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


_RUN = _digest("run/model.safetensors", "run/plan.json", "run/curves.npz")

VERBS: dict[str, Verb] = {
    "compress": Verb(lambda folder: None, _compress, _RUN),
    "compress-overwrite": Verb(lambda folder: _compress(folder, False), _again, _RUN),
    "apply": Verb(lambda folder: _compress(folder, False), _apply, _digest("run/model.safetensors", "run/plan.json")),
    "recover": Verb(lambda folder: _compress(folder, False), _recover, _digest("run/model.safetensors")),
    "select": Verb(_pool, _select, _chosen),
    "select-continue": Verb(_first_round, _second_round, _chosen),
    **{f"train-{name}": _train(name) for name in ("segment", "classify", "detect3d", "gait", "disc")},
    "predict": Verb(_trained, _predict, _masks),
    "adapt": Verb(_domains, _adapt, _digest("run/model.safetensors")),
}
"""Every verb that leaves files and can go on."""


def kill_points(verb: Verb, base: Path, place: Path) -> tuple[int, Any]:
    """How many file operations the work has, and what it gives when nothing stops it."""
    shutil.copytree(base, place)
    count = operations(place, verb.work, place, False)
    found = verb.result(place)
    shutil.rmtree(place)
    return count, found


def check(verb: Verb, base: Path, place: Path, count: int, wanted: Any) -> str:
    """Kill the work before an operation and go on; what is wrong with the result, or nothing.

    The folder has the same name every time: some results hold paths.
    """
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(base, place)
    try:
        code = killed_at(count, place, verb.work, place, False)
        if code not in (0, KILLED):
            return f"killed before operation {count}: exit {code}"
        if code == KILLED and (done := killed_at(0, place, _goes_on, verb.work, place)):
            return f"killed before operation {count}: going on ends with {done}"
        found = verb.result(place)
        return "" if found == wanted else f"killed before operation {count}: another result"
    finally:
        shutil.rmtree(place, ignore_errors=True)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=sorted(VERBS))
    parser.add_argument("--every", type=int, default=1, help="only every so many operations")
    parser.add_argument("--last", type=int, default=0, help="only the last so many operations")
    words = parser.parse_args()
    faults = 0
    for name in words.only or VERBS:
        with tempfile.TemporaryDirectory(prefix="fewer-kill-") as folder:
            verb, base, place = VERBS[name], Path(folder, "base"), Path(folder, "place")
            base.mkdir()
            verb.prepare(base)
            count, wanted = kill_points(verb, base, place)
            first = max(1, count - words.last + 1) if words.last else 1
            told = [check(verb, base, place, at, wanted) for at in range(first, count + 1, words.every)]
            wrong = [one for one in told if one]
            faults += len(wrong)
            print(f"{name}: {count} operations, {len(told)} kills, {len(wrong)} faults", *wrong, sep="\n  ", flush=True)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
