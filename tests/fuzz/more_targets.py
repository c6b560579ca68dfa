"""One function per kind of folder that a verb leaves for another one: exports, circuits and keys, interrupted work."""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.fuzz.mutate import VALUES, mutated_bytes, mutated_json
from tests.fuzz.task_targets import damage

__all__ = ["MORE"]


def _file(place: Path, draw: random.Random) -> Path:
    return draw.choice(sorted(p for p in place.rglob("*") if p.is_file()))


def _says(words: list[str]) -> None:
    """A command, whose answer must be 0 or one sentence."""
    import io

    from fewer.cli.main import main

    said = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
        code = main(words)
    if code not in (0, 2, 3):
        raise AssertionError(f"exit {code}: fewer {words}: {said.getvalue()[-600:]}")


def _exported(work: Path, draw: random.Random) -> None:
    """The folder for the Hub: loaded, looked at, and written over."""
    import fewer
    from fewer.models.spec import load_model

    place = work / "exported"
    path = _file(place, draw)
    damage(path, draw)
    if path.suffix == ".safetensors" and draw.random() < 0.7:  # so that what is in it is read
        recipe = place / "recipe.json"
        facts = json.loads(recipe.read_text()) | {"weights_sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        recipe.write_text(json.dumps(facts))
    act = draw.choice(["load", "spec", "info", "over", "accelerated"])
    if act == "load":
        fewer.load(place)
    elif act == "accelerated":
        fewer.load(place, accelerated=True)
    elif act == "spec":
        load_model(str(place))
    elif act == "info":
        _says(["info", str(place)])
    else:
        fewer.export(work / "run", "huggingface", out=place, overwrite=True)


def _circuit(work: Path, draw: random.Random) -> None:
    """A circuit and its description, as the server opens them and as a client does."""
    from fewer.private.keys import load_circuit, load_public, save_keys

    path = draw.choice([work / "circuit" / "circuit.npz", work / "circuit" / "public.json"])
    damage(path, draw)
    if draw.random() < 0.8:
        circuit, public = load_circuit(work / "circuit")
        circuit.run(np.zeros((1, *public.shape)))
    else:
        save_keys(work / "new-keys", load_public(work / "circuit"))


def _keys(work: Path, draw: random.Random) -> None:
    """A client's folder, and what goes over the wire in both directions."""
    from fewer.private.client import Query
    from fewer.private.keys import load_circuit
    from fewer.private.server import Refused, Service

    how = draw.random()
    if how < 0.6:
        damage(draw.choice(sorted(p for p in (work / "keys").iterdir() if p.name[0] != ".")), draw)
    service = Service(*load_circuit(work / "circuit"))

    def transport(path: str, body: bytes) -> bytes:
        from fewer.core.errors import FewerError

        try:
            if 0.6 < how < 0.8:
                body = mutated_bytes(body, draw)
            answer = (service.open if path == "/sessions" else service.query)(body)
        except Refused as error:
            raise FewerError(error.sentence) from None
        return mutated_bytes(answer, draw) if how > 0.8 else answer

    Query(work / "keys", transport)(np.zeros(service.public.shape))


def _inputs(work: Path, draw: random.Random) -> None:
    """A file of a data set, which a trained run is then scored on or asked about."""
    import fewer

    place = work / "trained" / draw.choice(sorted(p.name for p in (work / "trained").iterdir()))
    damage(_file(place / "data", draw), draw)
    if draw.random() < 0.5:
        fewer.evaluate(place / "run", place / "data", task=place.name)
    else:
        fewer.predict(place / "run", place / "data", out=work / "predicted", task=place.name)


def _interrupted(work: Path, draw: random.Random) -> None:
    """A training that was killed, whose files are damaged before it goes on."""
    import fewer
    from tests.support.tiny_tasks import TINY

    place = work / "interrupted" / draw.choice(sorted(p.name for p in (work / "interrupted").iterdir()))
    damage(_file(place / "run", draw), draw)
    chosen = dict(TINY[place.name].settings)
    if place.name == "classify":
        chosen["network"] = "resnet20"
    more = {"overwrite": True} if draw.random() < 0.2 else {}
    fewer.train(place / "data", task=place.name, out=place / "run", resume=True, **chosen, **more)


def _pages(work: Path, draw: random.Random) -> None:
    """The report of a training, read by the verbs that show it."""
    place = work / "trained" / draw.choice(sorted(p.name for p in (work / "trained").iterdir())) / "run"
    path = draw.choice([place / "report.json", place / "config.toml", place / "recipe.json", place / "log.jsonl"])
    damage(path, draw)
    _says([draw.choice(["report", "info"]), str(place)])


def _tuned(work: Path, draw: random.Random) -> None:
    """A tuned model."""
    import fewer

    place = work / "tuned"
    if not place.exists():  # nothing to tune with is installed
        return
    damage(draw.choice([place / "recipe.json", place / "model.safetensors", place / "config.toml"]), draw)
    act = draw.choice(["eval", "predict", "info", "load"])
    if act == "eval":
        fewer.evaluate(place, work / "sets" / "opinions" / "questions.json", task="quality")
    elif act == "predict":
        fewer.predict(place, work / "sets" / "opinions", out=work / "said", task="quality")
    elif act == "info":
        _says(["info", str(place)])
    else:
        fewer.load(place)


def _rows(work: Path, draw: random.Random) -> None:
    """A database of a study whose cells hold what nobody wrote, or whose tables are gone."""
    from fewer.study.export import export_study, rater_data
    from fewer.study.owner import owner_page, status
    from fewer.study.store import FILE, Store

    path = work / "study" / FILE
    connection = sqlite3.connect(path)
    tables = {
        "meta": ("value", "key"), "images": ("file", "score", "gold", "advice", "training"),
        "raters": ("name", "code", "owner", "trained", "in_a_row", "last"),
        "items": ("rater", "place", "form", "image", "other", "question", "repeat_of"),
    }  # fmt: skip
    item, rater = connection.execute("SELECT id, rater FROM items LIMIT 1").fetchone()
    answer = draw.choice(['{"description": "It is sharp.", "conclusion": "Good."}', "{}", "[1]", "x", "", "[" * 9999])
    connection.execute("INSERT INTO answers VALUES (?, ?, 1.0, 2.0, ?)", (item, rater, answer))
    table = draw.choice(sorted(tables))
    value = draw.choice([v for v in VALUES if isinstance(v, (int, float, str, type(None))) and v != "\ud800"])
    if isinstance(value, int) and abs(value) > 2**62:
        value = float(value)
    with contextlib.suppress(sqlite3.Error):
        if draw.random() < 0.15:
            connection.execute(f"DROP TABLE {table}")
        else:
            column = draw.choice(tables[table])
            where = "" if draw.random() < 0.3 else " WHERE rowid = 1"
            connection.execute(f"UPDATE {table} SET {column} = ?{where}", (value,))
    connection.commit()
    connection.close()
    store = Store(work / "study")
    try:
        act = draw.choice(["status", "page", "export", "rater"])
        if act == "status":
            status(store).lines()
        elif act == "page":
            owner_page(store)
        elif act == "export":
            export_study(store, work / "exported-study")
        else:
            rater_data(store, "rater-0001")
    finally:
        store.close()


def _adapted(work: Path, draw: random.Random) -> None:
    """A run of ``fewer adapt``: scored, asked, looked at, or gone on with."""
    import fewer

    place = work / "adapted"
    names = [
        p for p in (place / "run").iterdir() if p.is_file() and p.suffix in (".json", ".safetensors", ".toml", ".csv")
    ]
    damage(draw.choice(sorted(names)), draw)
    act = draw.choice(["eval", "predict", "info", "load", "report"])
    if act == "eval":
        fewer.evaluate(place / "run", place / "target", task="segment")
    elif act == "predict":
        fewer.predict(place / "run", place / "target", out=work / "predicted", task="segment")
    elif act == "load":
        fewer.load(place / "run")
    else:
        _says([act, str(place / "run")])


def _scores(work: Path, draw: random.Random) -> None:
    """What ``fewer predict`` of images with classes has left, which a resume reads."""
    import fewer

    place = work / "trained" / "classify"
    if not (work / "guessed").is_dir():
        fewer.predict(place / "run", place / "data", out=work / "guessed", task="classify")
    damage(draw.choice(sorted((work / "guessed").iterdir())), draw)
    fewer.predict(place / "run", place / "data", out=work / "guessed", task="classify", resume=True)


def _moved(work: Path, draw: random.Random) -> None:
    """A folder in the midst of an exchange, with a note that someone else wrote."""
    import fewer

    name = draw.choice(["run", "exported", "circuit", "keys", "queue", "study"])
    staging = work / name / draw.choice([".next", ".edit"])
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    (staging / "plan.json").write_text("{}")
    note: Any = {"new": ["plan.json"], "replaced": ["recipe.json"]}
    names = ["../x", "/etc/x", "", ".", "..", "a/b", ".next", ".edit", ".lock", "plan.json", None, 3, "\0"]
    if draw.random() < 0.6:
        note[draw.choice(["new", "replaced"])].append(draw.choice(names))
    else:
        note = mutated_json(note, draw)
    (staging / ".commit").write_text(json.dumps(note))
    if name in ("run", "exported"):
        fewer.load(work / name)
    elif name == "queue":
        fewer.select(None, "labels=1", out=work / "queue", proceed=True)
    elif name == "study":
        from fewer.study.store import Store

        Store(work / "study").close()
    else:
        from fewer.private.keys import load_public

        load_public(work / name)


def _own_weights(work: Path, draw: random.Random) -> None:
    """Weights of one's own, as ``torch.save`` writes them: damaged bytes, or tensors and names that are none."""
    import torch

    from fewer.models.options import load_checkpoint

    net, path = torch.nn.Linear(4, 3), work / "own.pt"
    state: dict[Any, Any] = dict(net.state_dict())
    odd = [
        torch.ones(3, 4, device="meta"), torch.eye(3, 4).to_sparse(), torch.ones(3, 4) * 1j, torch.ones(1).expand(3, 4),
        torch.full((3, 4), float("nan")), torch.ones(3, 4).bool(), torch.ones(0), torch.tensor(1.0), None, "x", 3, [],
        {"a": torch.ones(1)},
    ]  # fmt: skip
    if damaged := draw.random() < 0.5:
        state = {draw.choice(["model", "state_dict", "x"]): state} if draw.random() < 0.3 else state
    else:
        state[draw.choice(["weight", "bias", "module.weight", 1, "", None])] = draw.choice(odd)
    torch.save(state, path)
    if damaged:
        path.write_bytes(mutated_bytes(path.read_bytes(), draw))
    load_checkpoint(net, path)


MORE: dict[str, Callable[[Path, random.Random], None]] = {
    "own_weights": _own_weights,
    "exported": _exported, "circuit": _circuit, "keys": _keys, "inputs": _inputs, "interrupted": _interrupted,
    "pages": _pages, "tuned": _tuned, "rows": _rows, "adapted": _adapted, "scores": _scores, "moved": _moved,
}  # fmt: skip
