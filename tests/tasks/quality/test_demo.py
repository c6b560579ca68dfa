"""The simulated study from photos to a page, at the smallest size; and questions whose answer is the truth."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from fewer.data.distortions.truth import Applied, Truth, family
from fewer.study.vocabulary import ASPECTS
from fewer.tasks.quality.convert.facts import aspect_of
from fewer.tasks.quality.simulator import simulate_images, true_questions


def test_true_questions_have_the_true_answer():
    truths = [
        Truth("a.png", "p", (Applied("darken", 5),)),
        Truth("b.png", "p", (Applied("jpeg", 3, "centre"),)),
        Truth("c.png", "p"),
    ]
    for seed in range(20):
        for q in true_questions(truths, seed):
            answer = q.options[q.answer]
            if q.text.startswith("What"):
                assert answer == {"a.png": "underexposed", "b.png": "blocky"}[q.image]
                assert q.concern == ("in-context distortion" if q.image == "b.png" else "distortion")
            if "overall" in q.text:
                assert answer == {"a.png": "bad", "b.png": "good", "c.png": "excellent"}[q.image]
            if q.kind == "yes-or-no" and "underexposed" in q.text:
                assert (answer == "Yes") == (q.image == "a.png")


def test_who_knows_only_how_often_an_answer_is_right_gains_nothing():
    truths = [Truth(f"{i}.png", "p", (Applied(("darken", "jpeg")[i % 2], 4),)) for i in range(400)]
    aspects = {t.image: family(t.applied[0].family).aspect for t in truths}
    asked = [q for q in true_questions(truths, 1) if "overall" not in q.text]
    yes = [q.options[q.answer] == "Yes" for q in asked if q.kind == "yes-or-no"]
    bad = [aspect_of(q.text) == aspects[q.image] for q in asked if q.kind == "how"]
    assert len(yes) == len(bad) == 400 and 0.4 < np.mean(yes) < 0.6 and 0.4 < np.mean(bad) < 0.6
    for q in asked:
        if q.kind == "how":
            scale = ASPECTS[aspect_of(q.text)].answer
            assert q.options[q.answer] == scale[2 if aspect_of(q.text) == aspects[q.image] else 0]


def test_images_follow_from_the_seed(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (60, 50, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "p.png")
    one = simulate_images([tmp_path / "p.png"], tmp_path / "a", 5, side=40, seed=3)
    two = simulate_images([tmp_path / "p.png"], tmp_path / "b", 5, side=40, seed=3)
    assert one.truths == two.truths
    assert (tmp_path / "a" / "0004.png").read_bytes() == (tmp_path / "b" / "0004.png").read_bytes()
    kept = json.loads((tmp_path / "a" / "truth.json").read_text())
    assert [Truth.of(row) for row in kept] == list(one.truths)


def test_the_demo_ends_in_a_page(tmp_path, monkeypatch):
    pytest.importorskip("transformers", reason="a language model needs the extra fewer[tune]")
    from fewer.data.photos import Photo
    from fewer.tasks.quality import demo as module
    from fewer.tasks.quality import experiment

    photos = []
    for i in range(4):
        pixels = np.random.default_rng(i).integers(0, 255, (100, 110, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
        photos.append(Photo(tmp_path / f"{i}.png", "test"))
    monkeypatch.setattr(experiment, "real_photos", lambda: photos)
    done = module.demo(None, tmp_path / "out", steps=3, images=8, judged=6, distorted=64)
    page = done.page.read_text()
    assert "simulated feedback" in page and "What it got wrong" in page
    assert (
        set(done.numbers["before"]) == set(done.numbers["after"]) == set(done.numbers["linear layers on the encoder"])
    )
    assert "SRCC, unseen distortions" in done.numbers["after"]
