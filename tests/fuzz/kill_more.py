"""What else is killed by ``tests/fuzz/kills.py``: exports, scores, masks, circuits, keys, studies, tuning, repairs."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.fuzz.kill_verbs import images, net, pool, sensed
from tests.fuzz.verb import Verb, digest, files_of

__all__ = ["MORE"]


def _apply_elsewhere(folder: Path, resume: bool) -> None:
    import fewer

    plan = fewer.plan(folder / "run", "weights=40%")
    fewer.apply(folder / "run", plan, model=net(), images=images(), out=folder / "other", resume=resume)


def _apply_over(folder: Path, resume: bool) -> None:
    import fewer

    plan = fewer.plan(folder / "run", "weights=40%")
    more: dict[str, Any] = {"model": net(), "images": images(), "out": folder / "other", "overwrite": True}
    fewer.apply(folder / "run", plan, **more)


def _recover_elsewhere(folder: Path, resume: bool) -> None:
    import fewer

    more: dict[str, Any] = {"images": images(), "model": net(), "settings": {"batch": 4}, "resume": resume}
    fewer.recover(folder / "run", steps=4, out=folder / "other", **more)


def _two_runs(folder: Path) -> None:
    import fewer

    sensed(folder)
    fewer.apply(
        folder / "run", fewer.plan(folder / "run", "weights=70%"), model=net(), images=images(), out=folder / "other"
    )


def _loaded(place: str, architecture: Any = net) -> Callable[[Path], Any]:
    """The tensors of a run, as a reader gets them."""

    def read(folder: Path) -> Any:
        import fewer

        return {k: v.tolist() for k, v in fewer.load(folder / place, architecture).state_dict().items()}

    return read


def _export(**more: Any) -> Callable[[Path, bool], None]:
    def work(folder: Path, resume: bool) -> None:
        import fewer

        again = {"overwrite": True} if resume else {}
        fewer.export(folder / "run", out=folder / "made", architecture=net, **{**more, **again})

    return work


def _exported(folder: Path) -> None:
    import fewer

    sensed(folder)
    fewer.export(folder / "run", "huggingface", out=folder / "made", architecture=net)
    fewer.apply(folder / "run", fewer.plan(folder / "run", "weights=70%"), model=net(), images=images())


def _trained(name: str, again: bool = False) -> Callable[[Path], None]:
    """A trained run and its data; with ``again`` also predictions and scores that another one replaces."""

    def prepare(folder: Path) -> None:
        import fewer
        from tests.support.tiny_tasks import TINY

        tiny = TINY[name]
        chosen = {k: v.format(folder=folder) if isinstance(v, str) else v for k, v in tiny.settings.items()}
        if name == "classify":
            chosen["network"] = "resnet20"
        data = tiny.tiny_data(folder)
        for run in ("run", "first")[: 1 + again]:
            fewer.train(data, task=name, out=folder / run, **{**chosen, "seed": len(run)})
        data.rename(folder / "data")
        if again:
            _predict(name, "first")(folder, False)
            _evaluate(name, "first")(folder, False)

    return prepare


def _train_over(name: str) -> Callable[[Path, bool], None]:
    """A training that replaces a finished one."""

    def work(folder: Path, resume: bool) -> None:
        import fewer
        from tests.support.tiny_tasks import TINY

        chosen = {k: v for k, v in TINY[name].settings.items() if k != "network"}
        fewer.train(
            folder / "data", task=name, out=folder / "run", overwrite=True, resume=resume, **{**chosen, "seed": 7}
        )

    return work


def _predict(name: str, run: str = "run", **more: Any) -> Callable[[Path, bool], None]:
    def work(folder: Path, resume: bool) -> None:
        import fewer

        inputs = folder / "data" / "images" if name == "segment" else folder / "data"
        settings = {"pictures": True, "confidence": 0.0} if name == "detect3d" else {}
        fewer.predict(folder / run, inputs, task=name, out=folder / "found", resume=resume, **more, **settings)

    return work


def _evaluate(name: str, run: str = "run", **more: Any) -> Callable[[Path, bool], None]:
    def work(folder: Path, resume: bool) -> None:
        import fewer

        again = {"overwrite": True} if resume else more
        fewer.evaluate(folder / run, folder / "data", task=name, out=folder / "scores", **again)

    return work


def _small_net() -> Any:
    import torch
    from torch import nn

    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 4), nn.ReLU(), nn.Linear(4, 3)).eval()


def _compile(**more: Any) -> Callable[[Path, bool], None]:
    def work(folder: Path, resume: bool) -> None:
        import torch

        from fewer.verbs.private import private_compile

        draw = torch.Generator().manual_seed(0)
        shown = torch.randn(20, 1, 4, 4, generator=draw)
        more_ = {**more, **({"overwrite": True} if resume else {})}
        private_compile(_small_net(), shown, folder / "circuit", **more_)

    return work


def _circuit(folder: Path) -> Any:
    """What the circuit answers; the name of a circuit is drawn anew each time."""
    from fewer.private.keys import load_circuit

    circuit, public = load_circuit(folder / "circuit")
    shown = np.random.default_rng(0).normal(size=(2, 1, 4, 4))
    return circuit.run(shown).tolist(), public.parameters.degree, files_of(folder / "circuit")


def _keys(folder: Path, resume: bool) -> None:
    from fewer.core.errors import FewerError
    from fewer.verbs.private import private_keys

    try:
        private_keys(folder / "circuit", folder / "keys")
    except FewerError as error:  # killed after they were complete
        if not resume or "would make old answers unreadable" not in str(error):
            raise


def _usable_keys(folder: Path) -> Any:
    from fewer.private.keys import load_secret
    from fewer.private.seal import Client

    public, secret, keys, name = load_secret(folder / "keys")
    client = Client(public.parameters, secret)
    back = client.decrypt(client.encrypt(np.full(public.parameters.slots, 0.5)))
    mode = (folder / "keys" / "secret.key").stat().st_mode & 0o777
    return np.round(back[:4], 3).tolist(), sorted(keys), len(name), mode, files_of(folder / "keys")


def _secrets(folder: Path) -> Any:
    """Keys that anyone but their owner could read, at any moment: none."""
    keys = folder / "keys"
    return [str(p) for p in keys.rglob("*secret*") if p.stat().st_mode & 0o077] if keys.is_dir() else []


def _study(folder: Path, resume: bool) -> None:
    from fewer.core.errors import FewerError
    from fewer.study.new import new_study

    try:
        new_study(folder / "study", folder / "pool")
    except FewerError as error:  # killed after it was complete
        if not resume or "holds a study already" not in str(error):
            raise


def _asked(folder: Path) -> Any:
    from fewer.study.owner import status
    from fewer.study.store import Store, secret_hash

    store = Store(folder / "study")
    codes = [row.split(",")[1] for row in (folder / "study" / "codes.csv").read_text().splitlines()[1:]]
    known = {row["code"] for row in store.rows("SELECT code FROM raters")}
    told = status(store).to_dict()
    store.close()
    names = [name for name in files_of(folder / "study") if not name.endswith(("-wal", "-shm"))]
    return told, all(secret_hash(code) in known for code in codes), len(codes), names


def _made_study(folder: Path) -> None:
    pool(folder)
    _study(folder, False)


def _export_study(folder: Path, resume: bool) -> None:
    from fewer.study.export import export_study
    from fewer.study.store import Store

    store = Store(folder / "study")
    export_study(store, folder / "exported")
    store.close()


def _talks(folder: Path) -> None:
    from PIL import Image

    from fewer.tasks.quality.records import Record, write_records

    records = []
    for i in range(4):
        pixels = np.random.default_rng(i).integers(0, 255, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        records.append(Record(f"q{i}", (("<image>\nHow is the light?", "dark" if i % 2 else "bright"),), f"{i}.png"))
    write_records(folder / "talk.json", records)


def _tune(seed: int = 0, **more: Any) -> Callable[[Path, bool], None]:
    def work(folder: Path, resume: bool) -> None:
        from fewer.tasks.quality.settings import TuneSettings
        from fewer.tasks.quality.tuning import tune

        small = {"steps": 4, "batch": 2, "quality_width": 4, "grid": 2, "input_size": 32, "every": 2, "seed": seed}
        again = {**more, "resume": True} if resume else more
        tune(folder / "talk.json", out=folder / "run", settings=TuneSettings(**small), **again)

    return work


def _tuned(folder: Path) -> None:
    _talks(folder)
    _tune(1)(folder, False)


def _weights_of_tuned(folder: Path) -> Any:
    from fewer.tasks.quality.tuning import load_tuned

    return {k: v.tolist() for k, v in load_tuned(folder / "run").model.state_dict().items()}


def _domains(folder: Path) -> None:
    """Volumes whose masks are stored the other way round, for ``doctor --fix``."""
    import nibabel

    (folder / "raw/imagesTr").mkdir(parents=True), (folder / "raw/labelsTr").mkdir()
    facts = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "lesion": 1}, "numTraining": 2}
    (folder / "raw/dataset.json").write_text(json.dumps({**facts, "file_ending": ".nii.gz"}))
    turned = np.diag([-1.0, 1, 1, 1])
    turned[0, 3] = 7
    for i in range(2):
        mask = np.zeros((8, 7, 6), np.uint8)
        mask[1:4, 2:5, 1:4] = 1
        image = np.random.default_rng(i).normal(0, 5, mask.shape).astype(np.float32) + 60 * mask
        nibabel.save(nibabel.Nifti1Image(image, np.eye(4)), folder / f"raw/imagesTr/c{i}_0000.nii.gz")
        nibabel.save(nibabel.Nifti1Image(mask[::-1].copy(), turned), folder / f"raw/labelsTr/c{i}.nii.gz")


def _repair(folder: Path, resume: bool) -> None:
    from fewer.cli.main import main
    from fewer.core.errors import FewerError

    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        code = main(["doctor", str(folder / "raw"), "--fix", "--out", str(folder / "fixed")])
    # killed after it was complete
    if code and not (resume and "exists" in said.getvalue()):
        raise FewerError(said.getvalue())


def _repaired(folder: Path) -> Any:
    import nibabel

    found = {}
    for path in sorted((folder / "fixed").rglob("*.nii.gz")):
        volume: Any = nibabel.load(path)
        found[path.name] = (np.asarray(volume.dataobj).sum().item(), volume.affine.tolist())
    return found, files_of(folder / "fixed")


def _settled(folder: str, *names: str) -> Callable[[Path], Any]:
    """The files of a folder as the next verb that opens it finds them."""

    def of(place: Path) -> Any:
        from fewer.core.folder import finish_exchange

        finish_exchange(place / folder)
        return digest(folder, *names)(place)

    return of


def _of_task(name: str) -> dict[str, Verb]:
    """Predictions and scores of a task, new ones and those that replace others."""
    scores = digest("scores", "evaluation.json")
    over = {"overwrite": True}
    masks = digest("found") if name != "gait" else digest("found", "matches.csv")
    return {
        f"predict-{name}": Verb(_trained(name), _predict(name), masks),
        f"predict-{name}-overwrite": Verb(
            _trained(name, True),
            _predict(name, **over),
            masks,
            _settled("found", *(["matches.csv"] if name == "gait" else [])),
        ),
        f"eval-{name}-overwrite": Verb(
            _trained(name, True),
            _evaluate(name, **over),
            scores,
            _settled("scores", "evaluation.json", "evaluation.csv"),
        ),
    }


_PAIR = digest("other", "model.safetensors", "plan.json", "curves.npz")

MORE: dict[str, Verb] = {
    "apply-out": Verb(sensed, _apply_elsewhere, _PAIR),
    "apply-overwrite": Verb(_two_runs, _apply_over, _PAIR, _loaded("other")),
    "recover-out": Verb(sensed, _recover_elsewhere, digest("other", "model.safetensors")),
    "export-huggingface": Verb(sensed, _export(to="huggingface"), digest("made", "model.safetensors")),
    "export-huggingface-overwrite": Verb(
        _exported, _export(to="huggingface", overwrite=True), digest("made", "model.safetensors"), _loaded("made")
    ),
    "private-compile": Verb(lambda folder: None, _compile(), _circuit),
    "private-compile-overwrite": Verb(
        lambda folder: _compile(degree=4)(folder, False), _compile(overwrite=True), _circuit, _circuit
    ),
    "private-keys": Verb(lambda folder: _compile()(folder, False), _keys, _usable_keys, _secrets),
    "study-new": Verb(pool, _study, _asked),
    "study-export": Verb(_made_study, _export_study, digest("exported")),
    "tune": Verb(_talks, _tune(), _weights_of_tuned),
    "tune-overwrite": Verb(_tuned, _tune(overwrite=True), _weights_of_tuned, _weights_of_tuned),
    "train-segment-overwrite": Verb(
        _trained("segment"), _train_over("segment"), digest("run", "model.safetensors"), _loaded("run", None)
    ),
    "doctor-fix": Verb(_domains, _repair, _repaired),
    **{key: verb for name in ("segment", "classify", "detect3d", "gait") for key, verb in _of_task(name).items()},
}
"""Verbs whose files must be those of before or those of after, whatever happens."""
