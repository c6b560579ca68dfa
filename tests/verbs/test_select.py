"""The verb select: rounds, labels that come back, and everything that can be wrong with the input."""

from __future__ import annotations

import csv
import errno
import json
import os
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image

from fewer.core.errors import FewerError
from fewer.core.lock import FolderLock
from fewer.data.images import list_images
from fewer.selection.plan import QueuePlan
from fewer.tasks.segment import features
from fewer.tasks.segment.warmup import WarmNetwork
from fewer.verbs.select import select
from tests.selection.conftest import draw, net, pool  # noqa: F401

pytest.importorskip("sklearn", reason="scikit-learn is not installed: pip install 'fewer[select]'")


@pytest.fixture
def ask(pool, net, tmp_path):  # noqa: F811
    """``ask("labels=4", proceed=True, ...)`` chooses into the folder ``queue``."""

    def call(budget="labels=4", **more):
        first = not more.get("proceed")
        defaults = {"out": tmp_path / "queue", "features": net if first else None, "backend": "serial"}
        return select(pool if first else None, budget, **{**defaults, **more})

    return call


def names_of(selected) -> list[str]:
    return [asked.name for asked in selected.chosen]


def assert_refused(says: str, call, *words, **more) -> None:
    with pytest.raises(FewerError, match=says) as error:
        call(*words, **more)
    assert "\n" not in str(error.value)


def test_a_queue_that_can_be_read(ask, pool, tmp_path):  # noqa: F811
    done = ask("labels=25%")
    queue = tmp_path / "queue"
    assert len(done.chosen) == 6 and {p.name for p in queue.iterdir()} == {
        *(".fewer-queue", "config.toml", "images.jsonl", "vectors.f32", "vectors.f32.jsonl", "plan.json", "queue.csv"),
        *("gallery.html", "labelstudio.json", "coco.json"),
    }
    assert QueuePlan.load(queue / "plan.json") == done.plan
    rows = list(csv.DictReader((queue / "queue.csv").open()))
    assert [row["name"] for row in rows] == names_of(done) and {row["status"] for row in rows} == {"waiting"}
    # four kinds of picture, six picks: every kind is there
    assert {int(Path(name).stem) % 4 for name in names_of(done)} == {0, 1, 2, 3}
    coco = json.loads((queue / "coco.json").read_text())
    assert [(i["file_name"], i["width"], i["height"]) for i in coco["images"]] == [(n, 24, 20) for n in names_of(done)]


def test_the_page_needs_nothing_from_elsewhere_and_escapes_names(ask, pool, tmp_path):  # noqa: F811
    for path in list_images(pool):
        path.rename(path.with_name(f"<b>{path.name}"))
    page = (ask("labels=3").folder / "gallery.html").read_text()
    assert "&lt;b&gt;" in page and "<b>0" not in page
    assert page.count('class="rank"') == 3 and page.count("data:image/jpeg;base64,") >= 3
    assert not re.findall(r"(?:src|href)=[\"'](?!data:|#)", page) and "http" not in page.replace("http-equiv", "")
    assert page.count("<svg") >= 2  # the map, wide and narrow


def test_the_same_seed_gives_the_same_queue(ask, tmp_path):
    assert names_of(ask(method="random")) == names_of(ask(method="random", out=tmp_path / "b"))
    assert names_of(ask(method="random", out=tmp_path / "c", seed=1)) != names_of(
        ask(method="random", out=tmp_path / "d")
    )


def test_rounds_never_choose_an_image_twice_also_when_the_pool_grows(ask, pool, tmp_path):  # noqa: F811
    first = names_of(ask())
    for index in range(24, 30):
        draw(pool / "0new" / f"{index}.png", index % 4, index)  # sorts before all others
    (tmp_path / "done.txt").write_text(f"{first[0]}\n{first[1]}\na/00.png\n")
    second = ask("labels=8", proceed=True, labels=tmp_path / "done.txt")
    assert second.plan.labelled.keys() == {first[0], first[1], "a/00.png"}
    third = ask("labels=100%", proceed=True)
    picks = [*first, *names_of(second), *names_of(third)]
    assert len(set(picks)) == len(picks) == 30 - ("a/00.png" not in first)
    assert "a/00.png" not in names_of(second) + names_of(third)
    assert {p.split("/")[0] for p in picks} == {"a", "b", "0new"}
    assert [r.chosen for r in third.plan.rounds] == [4, 8, len(names_of(third))]
    vectors = np.fromfile(tmp_path / "queue" / "vectors.f32", "<f4").reshape(30, 7)
    assert vectors.any(1).all()
    assert_refused("no image is left to choose", ask, "labels=1", proceed=True)


def label_studio(tasks: list[dict], names: list[str]) -> list[dict]:
    """What Label Studio exports for our own tasks: the first gets a class, the second another, the third is skipped."""
    for place, task in enumerate(tasks):
        result = [{"type": "choices", "value": {"choices": ["ab"[place % 2]]}}]
        task["annotations"] = [{"result": result, "was_cancelled": place == 2}]
    return tasks


def test_label_studio_there_and_back(ask, tmp_path):
    first = names_of(ask("labels=8"))
    tasks = json.loads((tmp_path / "queue" / "labelstudio.json").read_text())
    assert [t["data"]["fewer_name"] for t in tasks] == first and tasks[0]["data"]["image"].endswith(f"?d={first[0]}")
    for task in tasks[1:]:
        del task["data"]["fewer_name"]  # as when somebody has built the tasks himself
    (tmp_path / "back.json").write_text(json.dumps(label_studio(tasks, first)))
    second = ask("labels=4", proceed=True, labels=tmp_path / "back.json", method="entropy")
    assert second.returned.kind == "labelstudio" and second.returned.unknown == []
    assert second.plan.labelled == {n: "ab"[i % 2] for i, n in enumerate(first) if i != 2}
    assert "least sure" in second.chosen[0].why and not set(names_of(second)) & set(first)
    assert names_of(ask("labels=4", proceed=True, method="bald")) != names_of(second)


def test_coco_and_masks_there_and_back(ask, pool, tmp_path):  # noqa: F811
    first = names_of(ask("labels=6", to=["coco", "masks"]))
    coco = json.loads((tmp_path / "queue" / "coco.json").read_text())
    coco["annotations"] = [{"id": 1, "image_id": coco["images"][1]["id"], "category_id": 1, "bbox": [1, 1, 4, 4]}]
    (tmp_path / "instances.json").write_text(json.dumps(coco))
    second = ask("labels=2", proceed=True, labels=tmp_path / "instances.json")
    assert second.plan.labelled == {first[1]: None}
    masks = tmp_path / "queue" / "annotate" / "masks"
    copies = sorted(p.relative_to(masks.parent / "images").as_posix() for p in list_images(masks.parent / "images"))
    assert copies == sorted(first)
    (masks / first[0]).parent.mkdir()
    Image.new("L", (24, 20)).save((masks / first[0]).with_suffix(".bmp"))
    third = ask("labels=2", proceed=True, labels=masks, to=[])
    assert third.plan.labelled == {first[0]: None, first[1]: None} and third.returned.kind == "masks"


def test_cvat_there_and_back(ask, tmp_path):
    first = names_of(ask("labels=4", to=["cvat"]))
    root = ElementTree.parse(tmp_path / "queue" / "cvat.xml").getroot()
    assert [image.get("name") for image in root.iter("image")] == first
    for image in list(root.iter("image"))[:2]:
        ElementTree.SubElement(image, "polygon", label="crack", points="1,1;3,1;3,3")
    (tmp_path / "annotations.xml").write_bytes(ElementTree.tostring(root))
    second = ask("labels=2", proceed=True, labels=tmp_path / "annotations.xml")
    assert second.plan.labelled == {first[0]: None, first[1]: None} and second.returned.kind == "cvat"
    assert not set(names_of(second)) & set(first)


def test_features_of_a_warm_up(ask, pool, tmp_path, monkeypatch):  # noqa: F811
    pytest.importorskip("monai", reason="MONAI is not installed: pip install 'fewer[medical]'")
    monkeypatch.setattr(features, "STEPS", 4)
    (pool / "a" / "02.png").write_bytes(b"broken")
    done = ask("labels=3", features="warm-up", input_size=16)
    warm = tmp_path / "queue" / "warm-up"
    assert {p.name for p in warm.iterdir()} == {"model.safetensors", "recipe.json"}
    assert [s.name for s in done.plan.skipped] == ["a/02.png"] and done.plan.features == "warm-up"
    # an oracle: the network of the folder, given the prepared image by hand
    network = WarmNetwork.load(warm)
    pixels = np.asarray(Image.open(pool / "a" / "00.png").convert("RGB").resize((19, 16), 2), np.float32)
    image = network.preparation.normalised(pixels[:, 2:18].transpose(2, 0, 1)[: network.preparation.channels])
    wanted = network.embedder()(torch.from_numpy(image)[None])[0].numpy()
    rows = [json.loads(line) for line in (tmp_path / "queue" / "images.jsonl").read_text().splitlines()]
    got = np.fromfile(tmp_path / "queue" / "vectors.f32", "<f4").reshape(24, -1)[rows.index("a/00.png")]
    assert np.abs(got - wanted).max() < 0.05 * np.abs(wanted).max()
    # a further round embeds new images with the very same network
    before = (warm / "model.safetensors").read_bytes()
    draw(pool / "c" / "new.png", 1, 99)
    assert len(ask("labels=100%", proceed=True).plan.queue) == 24
    assert (warm / "model.safetensors").read_bytes() == before
    assert_refused("leave --layer out", ask, features="warm-up", layer="model", out=tmp_path / "q2")
    assert_refused("multiple of 8", ask, features="warm-up", input_size=20, out=tmp_path / "q2")
    assert not (tmp_path / "q2").exists()


def test_predictions_steer_later_rounds(ask, pool, tmp_path):  # noqa: F811
    first = names_of(ask("labels=2"))
    names = [p.relative_to(pool).as_posix() for p in list_images(pool)]
    one, two = [name for name in names if name not in first][:2]
    sure = np.tile([0.99, 0.01], (24, 1))
    sure[names.index(one)] = 0.5
    np.savez(tmp_path / "p.npz", names=np.array(names), probabilities=sure)
    got = ask("labels=1", proceed=True, method="entropy", predictions=tmp_path / "p.npz")
    assert names_of(got) == [one]
    for name in names:
        out = (tmp_path / "maps" / name).with_suffix(".npy")
        out.parent.mkdir(parents=True, exist_ok=True)
        np.save(out, np.full((2, 5, 5), 0.5) if name == two else np.stack([np.ones((5, 5)), np.zeros((5, 5))]))
    mapped = ask("labels=1", proceed=True, method="entropy", predictions=tmp_path / "maps")
    assert names_of(mapped) == [two]


def test_features_from_a_file(ask, pool, tmp_path):  # noqa: F811
    np.save(tmp_path / "f.npy", np.random.default_rng(0).normal(size=(24, 5)).astype(np.float16))
    assert len(ask(features=tmp_path / "f.npy", method="kcenter").chosen) == 4
    # an image that sorts before all others joins: the file's new first row is its own, and nobody else's moves
    chosen = {a.name for a in ask("labels=1", proceed=True).plan.queue}
    draw(pool / "0" / "new.png", 1, 1)
    grown = np.vstack([np.full((1, 5), 50), np.load(tmp_path / "f.npy")])
    np.save(tmp_path / "f.npy", grown)
    assert names_of(ask("labels=1", proceed=True, method="kcenter")) == ["0/new.png"] and "0/new.png" not in chosen
    np.save(tmp_path / "short.npy", np.zeros((23, 5)))
    assert_refused("shape .23, 5.*has 25 images", ask, features=tmp_path / "short.npy", out=tmp_path / "q2")
    assert not (tmp_path / "q2").exists()


def test_corrupted_images_are_counted_and_named(ask, pool):  # noqa: F811
    for name in ("a/02.png", "b/05.png"):
        (pool / name).write_bytes(b"\x89PNG broken")
    for name in ("phone.HEIC", "b/film.mov"):
        (pool / name).write_bytes(b"x")
    done = ask("labels=22")
    gone = {"a/02.png", "b/05.png", "phone.HEIC", "b/film.mov"}
    assert {s.name for s in done.plan.skipped} == gone and all(s.reason for s in done.plan.skipped)
    assert not {"a/02.png", "b/05.png"} & set(names_of(done))
    assert "b/05.png" in (done.folder / "gallery.html").read_text()


def test_features_from_a_file_say_nothing_about_broken_images(ask, pool, tmp_path):  # noqa: F811
    np.save(tmp_path / "f.npy", np.random.default_rng(0).normal(size=(24, 5)).astype(np.float16))
    for name in ("a/02.png", "b/05.png"):
        (pool / name).write_bytes(b"\x89PNG broken")
    assert_refused("at most labels=22", ask, "labels=24", features=tmp_path / "f.npy")
    done = ask("labels=22", features=tmp_path / "f.npy", to=["coco", "masks"])
    assert {s.name for s in done.plan.skipped} == {"a/02.png", "b/05.png"} and len(done.chosen) == 22
    assert not {"a/02.png", "b/05.png"} & set(names_of(done))


def test_a_waiting_image_that_is_gone_is_told_and_stops_nothing(ask, pool, tmp_path):  # noqa: F811
    first = names_of(ask(to=["coco", "cvat", "masks"]))
    (pool / first[0]).unlink()
    (pool / first[1]).write_bytes(b"no image any more")
    second = ask("labels=2", proceed=True, to=["coco", "cvat", "masks"])
    assert second.lost == first[:2]
    listed = {image["file_name"] for image in json.loads((tmp_path / "queue" / "coco.json").read_text())["images"]}
    assert listed == {*first[2:], *names_of(second)}


@pytest.mark.parametrize(
    ("budget", "more", "says"),
    [
        ("labels=25", {}, "the budget of 25 labels is more than the pool can give: 24 images.*at most labels=24"),
        ("labels=2.5", {}, "whole number"),
        ("weights=50%", {}, "one budget of labels"),
        ("labels=3", {"method": "kcentre"}, "did you mean 'kcenter'"),
        ("labels=3", {"to": ["cocco"]}, "did you mean 'coco'"),
        ("labels=3", {"method": "entropy"}, "in a cold start there is no model yet"),
        ("labels=3", {"features": "fewer/dinov3-small"}, "did you mean 'fewer/dinov2-small'"),
        ("labels=3", {"layer": "nine"}, "no layer 'nine'"),
        ("labels=3", {"labels": "nowhere.json"}, "does not exist"),
        ("labels=3", {"proceed": True}, "holds no queue to continue"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_no_queue(ask, tmp_path, budget, more, says):
    assert_refused(says, ask, budget, **more)
    assert not (tmp_path / "queue" / "plan.json").exists()


def test_an_empty_pool_and_no_pool(ask, net, tmp_path):  # noqa: F811
    (tmp_path / "empty").mkdir()
    for folder, says in (("empty", "holds nothing"), ("emty", "did you mean 'empty'")):
        with pytest.raises(FewerError, match=says):
            select(tmp_path / folder, "labels=1", out=tmp_path / "q", features=net)
        assert not (tmp_path / "q").exists()


def test_labels_that_cannot_be_meant(ask, pool, tmp_path):  # noqa: F811
    first = names_of(ask())
    before = (tmp_path / "queue" / "plan.json").read_bytes()
    masks = tmp_path / "masks"
    (masks / first[0]).parent.mkdir(parents=True)
    Image.new("L", (20, 24)).save(masks / first[0])
    assert_refused(r"has 20 x 24 pixels, but its image .* has 24 x 20", ask, proceed=True, labels=masks)
    for text, name, says in (
        ("strange.png\n", "x.txt", "none of the 1 images in .* is in the pool"),
        ('{"a": 1}', "x.json", "neither a Label Studio export"),
        ("[1, 2]", "y.json", "not one of Label Studio tasks"),
        ("{", "z.json", "not valid JSON"),
        ("", "e.txt", "is empty"),
    ):
        (tmp_path / name).write_text(text)
        assert_refused(says, ask, proceed=True, labels=tmp_path / name)
    assert_refused("has no column 'label'", ask, proceed=True, labels=tmp_path / "queue" / "queue.csv")
    assert (tmp_path / "queue" / "plan.json").read_bytes() == before
    assert_refused("was made with features", ask, proceed=True, features="fewer/mobilenet-v2")


def test_two_runs_on_one_folder(ask, tmp_path):
    ask()
    lock = FolderLock(tmp_path / "queue")
    lock.take()
    assert_refused("is in use by process [0-9]+ on .*; wait for it", ask, proceed=True)
    lock.release()
    assert_refused("already holds a queue; give --continue", ask)
    assert len(ask(overwrite=True).plan.rounds) == 1
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("mine")
    assert_refused("was not made by fewer select", ask, out=tmp_path / "other", overwrite=True)


def test_a_disk_that_fills_during_embedding(ask, tmp_path, monkeypatch):
    pwrite, calls = os.pwrite, []

    def filling(handle, data, place):
        calls.append(place)
        if len(calls) > 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return pwrite(handle, data, place)

    monkeypatch.setattr(os, "pwrite", filling)
    assert_refused("no space left on the disk while writing", ask, batch=4)
    assert not (tmp_path / "queue" / "plan.json").exists()
    monkeypatch.setattr(os, "pwrite", pwrite)
    assert_refused("holds an interrupted queue; give --resume", ask, batch=4)
    assert len(ask(batch=4, resume=True).chosen) == 4


def test_saal_as_published_embeds_corrupted_images(ask, tmp_path):
    done = ask("labels=8", method="saal")
    assert 0 < len(done.chosen) <= 8 and (tmp_path / "queue" / "corrupted.f32").stat().st_size == 24 * 7 * 4


def test_a_budget_beyond_the_pool_names_the_files_that_were_left_out(ask, pool):  # noqa: F811
    count = len(list_images(pool))
    list_images(pool)[0].rename(pool / os.fsdecode(b"caf\xe9.png"))
    assert_refused(r"at most labels=\d+; left out are caf.*UTF-8", ask, f"labels={count}")
    (pool / "broken.png").write_bytes(b"no picture")
    assert_refused(r"at most labels=\d+; left out are broken\.png", ask, f"labels={count}")


def test_a_budget_without_a_name_is_one_of_labels():
    from fewer.verbs.select import one_budget

    for text in ("8", " 5%"):
        with pytest.raises(FewerError, match=f"write labels={text.strip()}"):
            one_budget(text)


EVIL = "from pathlib import Path\nfrom torch import nn\nPath('PWNED').touch()\n\n\ndef f():\n    return nn.Flatten()\n"


@pytest.fixture
def foreign(ask, tmp_path, monkeypatch):
    """A queue that someone else made, whose configuration can be changed."""
    monkeypatch.chdir(tmp_path)
    ask()
    (tmp_path / "queue" / "evil.py").write_text(EVIL)

    def change(**facts):
        from fewer.core.toml import dump_toml, read_toml

        path = tmp_path / "queue" / "config.toml"
        kept = read_toml(path) | facts
        path.write_text(dump_toml({key: value for key, value in kept.items() if value is not None}))

    return change


def test_code_that_a_foreign_queue_names_does_not_run(ask, foreign, tmp_path):
    from fewer.models.trust import forget_trust

    forget_trust()
    foreign(features="queue/evil.py:f")
    assert_refused(r"names Python code, queue/evil.py.*--trust", ask, "labels=1", proceed=True)
    assert_refused("no such file", ask, "labels=1", proceed=True, trust="other.py")
    assert not Path("PWNED").exists() and (tmp_path / "queue" / "plan.json").exists()
    ask("labels=1", proceed=True, trust="queue/evil.py")
    assert Path("PWNED").exists()


def test_one_goes_on_with_the_own_queue_in_another_process(ask, net, tmp_path, monkeypatch):  # noqa: F811
    from fewer.models import trust

    ask()
    monkeypatch.setattr(trust, "_ran", set())  # as in a new process
    assert len(ask("labels=1", proceed=True).chosen) == 1
    monkeypatch.setattr(trust, "_ran", set())
    Path(net.rpartition(":")[0]).write_text(EVIL)
    assert_refused("names Python code", ask, "labels=1", proceed=True)
    assert not Path("PWNED").exists()


def test_a_foreign_queue_asks_no_server(ask, foreign, monkeypatch):
    import sys

    from fewer.models.foreign import alone

    with alone():
        pass  # its hook is there before ours, which sees what that one lets through
    asked = []
    sys.addaudithook(lambda event, facts: asked.append(facts) if event.startswith("socket.getaddrinfo") else None)
    monkeypatch.setenv("TORCH_HOME", "no-weights-here")
    for name in ("torchvision/resnet18", "http://127.0.0.1:9/x"):
        foreign(features=name)
        with pytest.raises(FewerError):
            ask("labels=1", proceed=True)
    assert not asked


def test_a_queue_without_its_pool_is_told(ask, foreign):
    for pool in (None, 3, ""):  # noqa: F402
        foreign(pool=pool)
        assert_refused("names no pool", ask, "labels=1", proceed=True)


@pytest.mark.parametrize("name", ["../../x.png", "/etc/x.png", "a/../../x.png", "", "a\0b.png"])
def test_names_of_a_foreign_queue_lead_nowhere_else(ask, foreign, tmp_path, name):
    outside = tmp_path / "x.png"
    Image.new("L", (4, 4)).save(outside)
    path = tmp_path / "queue" / "plan.json"
    plan = json.loads(path.read_text())
    plan["queue"][0]["name"] = name
    path.write_text(json.dumps(plan))
    assert_refused("is no name of an image", ask, "labels=1", proceed=True, to=["masks"])
    path.unlink()
    for one in ({"labelled": {name: "a"}}, {}):
        plan["queue"][0]["name"] = "0.png"
        path.write_text(json.dumps({**plan, **one}))
        if not one:
            (tmp_path / "queue" / "images.jsonl").write_text(json.dumps(name) + "\n")
        with pytest.raises(FewerError):
            ask("labels=1", proceed=True, to=["masks"])


def test_a_queue_that_was_copied_by_hard_links_leaves_the_copy_as_it_was(ask, pool, tmp_path):  # noqa: F811
    ask()
    for path in (tmp_path / "queue").iterdir():
        (tmp_path / "kept").mkdir(exist_ok=True)
        (tmp_path / "kept" / path.name).hardlink_to(path)
    before = {path.name: path.read_bytes() for path in (tmp_path / "kept").iterdir()}
    draw(pool / "new.png", 3, 30)  # its vector goes behind the others
    ask("labels=1", proceed=True)
    assert {path.name: path.read_bytes() for path in (tmp_path / "kept").iterdir()} == before


def test_odd_files_of_a_queue_are_told(ask, foreign, tmp_path):
    plan, note, vectors = (tmp_path / "queue" / name for name in ("plan.json", "round.json", "vectors.f32"))
    kept = plan.read_text()
    twice = json.loads(kept)
    twice["queue"] += twice["queue"]
    plan.write_text(json.dumps(twice))
    assert_refused("holds an image twice", ask, "labels=1", proceed=True)
    plan.write_text(kept)
    note.write_text("[" * 100_000)
    assert_refused("is finished", ask, "labels=1", proceed=True, resume=True)
    vectors.write_bytes(b"\xff" * vectors.stat().st_size)
    assert_refused("NaN or infinite", ask, "labels=1", proceed=True)
    for budget in (3, None, 4.0, b"labels=3"):
        assert_refused("a budget is text", ask, budget, proceed=True)
