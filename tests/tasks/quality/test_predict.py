"""Predictions that end midway, folders with odd files, and conversations whose images are not there."""

from __future__ import annotations

import json

import pytest
import torch

import fewer
from fewer.core.errors import FewerError
from fewer.tasks.quality import asking
from fewer.tasks.quality.records import read_records
from fewer.tasks.quality.settings import TuneSettings
from fewer.tasks.quality.tuning import load_tuned, plan_tuning, tune
from fewer.tasks.quality.words import PlainWords
from tests.tasks.quality.test_tuning import SMALL, talk  # noqa: F401

pytest.importorskip("transformers", reason="a language model needs the extra fewer[tune]")


def test_a_prediction_that_ended_midway_goes_on(talk, monkeypatch):  # noqa: F811
    tune(talk / "talk.json", out=talk / "run", settings=TuneSettings(**{**SMALL, "steps": 1}))
    photos = talk / "photos"
    (photos / "deep").mkdir(parents=True)
    for i, name in enumerate(("a ä.png", "deep/b.png", "c.png")):
        (photos / name).write_bytes((talk / f"{i}.png").read_bytes())
    (photos / "phone.heic").write_bytes(b"x")
    (photos / "broken.png").write_bytes(b"x")
    real, asked = asking.describe, []

    def describe(tuned, pictures, images, question):
        asked.extend(images)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return real(tuned, pictures, images, question)

    monkeypatch.setattr(asking, "describe", describe)
    with pytest.raises(KeyboardInterrupt):
        fewer.predict(talk / "run", photos, out=talk / "told", task="quality")
    with (talk / "told" / ".descriptions.jsonl").open("a") as file:
        file.write('["half a')
    found = fewer.predict(talk / "run", photos, out=talk / "told", task="quality", resume=True)
    assert set(found.rows) == {"a ä.png", "deep/b.png", "c.png"}
    assert asked == ["a ä.png", "broken.png", "c.png", "broken.png", "c.png", "deep/b.png"]
    reasons = dict(found.skipped)
    assert "cannot identify" in reasons["broken.png"] and ".heic are not read" in reasons["phone.heic"]
    assert not (talk / "told" / ".descriptions.jsonl").exists()
    again = fewer.predict(talk / "run", photos, out=talk / "told", task="quality", resume=True)
    assert again.rows == found.rows and again.skipped == found.skipped and len(asked) == 6
    with pytest.raises(FewerError, match="exists already"):
        fewer.predict(talk / "run", photos, out=talk / "told", task="quality")


def test_conversations_without_their_images_are_left_out_when_asked(talk):  # noqa: F811
    records = json.loads((talk / "talk.json").read_text())
    (talk / "0.png").unlink()
    (talk / "1.png").write_bytes(b"no picture")
    gone = sum(record.get("image") in ("0.png", "1.png") for record in records)
    settings = TuneSettings(**{**SMALL, "steps": 1})
    with pytest.raises(FewerError, match=r"1 of \d+ images are not in .*--leave-out"):
        tune(talk / "talk.json", settings=settings)
    settings = settings.model_copy(update={"leave_out": True})
    told = plan_tuning(talk / "talk.json", settings)
    assert told[1].startswith(f"{gone} more were left out") and f"{len(records) - gone} conversations" in told[0]
    done = tune(talk / "talk.json", settings=settings)
    assert done.facts["conversations_left_out"] == gone and f"{gone} conversations were left out" in done.lines()[-1]
    video = {
        "video": "a.mp4",
        "conversations": [{"from": "human", "value": "<video>Dark?"}, {"from": "gpt", "value": "No"}],
    }
    (talk / "more.json").write_text(json.dumps([video, *records, video]))
    with pytest.raises(FewerError, match=r"record 0 .* is about a video.*--leave-out"):
        plan_tuning(talk / "more.json", settings.model_copy(update={"leave_out": False}))
    assert plan_tuning(talk / "more.json", settings)[1].startswith(f"{gone + 2} more were left out")
    only = [record for record in read_records(talk / "talk.json") if record.image in ("0.png", "1.png")]
    with pytest.raises(FewerError, match="1 of 2 images are not in"):
        tune(only, settings=settings.model_copy(update={"images": str(talk)}))


def test_a_model_that_never_saw_rating_words_still_describes(talk):  # noqa: F811
    asked = [{"from": "human", "value": "<image>\nIs it dark?"}, {"from": "gpt", "value": "Yes"}]
    (talk / "dark.json").write_text(json.dumps([{"id": "0", "image": "0.png", "conversations": asked}]))
    tune(talk / "dark.json", out=talk / "run", settings=TuneSettings(**{**SMALL, "steps": 1}))
    (talk / "photos").mkdir()
    (talk / "photos" / "a.png").write_bytes((talk / "0.png").read_bytes())
    found = fewer.predict(talk / "run", talk / "photos", out=talk / "told", task="quality")
    assert found.rows["a.png"].keys() == {"text"} and "there are no scores" in found.lines()[-1]
    (talk / "mos.csv").write_text("0.png,3\n1.png,4\n")
    with pytest.raises(FewerError, match="never saw the words excellent, good"):
        fewer.evaluate(talk / "run", talk / "mos.csv", task="quality")
    with pytest.raises(
        FewerError, match=r"2 of 2 images that .*mos.csv names are not in .*give their folder with --images"
    ):
        fewer.evaluate(talk / "run", talk / "mos.csv", task="quality", images=str(talk / "photos"))
    asked = [{"img_path": "none.png", "question": "Is it dark?", "candidates": ["Yes", "No"], "correct_ans": "No"}]
    (talk / "q.json").write_text(json.dumps(asked))
    with pytest.raises(FewerError, match=r"1 of 1 images that .*q.json names are not in"):
        fewer.evaluate(talk / "run", talk / "q.json", task="quality")
    (talk / "golden.json").write_text(json.dumps({"a": {"img_path": "none.png", "golden_desc": "It is dark."}}))
    with pytest.raises(FewerError, match=r"1 of 1 images that .*golden.json names are not in"):
        fewer.evaluate(talk / "run", talk / "golden.json", task="quality")
    with pytest.raises(FewerError, match="have no two images in common"):
        fewer.evaluate(talk / "told" / "descriptions.json", talk / "mos.csv", task="quality")


def test_words_in_other_letters_and_words_that_are_not_known(talk):  # noqa: F811
    words = PlainWords(["Yes", "no", "noisy"])
    assert words.encode("yes") == words.encode("Yes") and words.encode("No NOISY") == words.encode("no noisy")
    assert words.unknown("yes zebra") and not words.unknown("YES")
    tune(talk / "talk.json", out=talk / "run", settings=TuneSettings(**{**SMALL, "steps": 1}))
    asked = [
        {"img_path": "0.png", "question": "How is the light?", "candidates": options, "correct_ans": options[0]}
        for options in (["zebra", "gnu"], [next(w for w in load_tuned(talk / "run").words.words if w.isalpha()), "."])
    ]
    (talk / "asked.json").write_text(json.dumps(asked))
    found = fewer.evaluate(talk / "run", talk / "asked.json", task="quality")
    assert found.note.endswith("; 1 questions have options with words that the model never saw")


def test_a_tuning_that_ended_midway_goes_on_to_the_same_model(talk, monkeypatch):  # noqa: F811
    from fewer.tasks.quality.talks import Talks

    settings = TuneSettings(**{**SMALL, "steps": 12, "every": 4})
    whole = tune(talk / "talk.json", settings=settings)
    real, drawn = Talks.draw, []

    def draw(talks, step, count):
        drawn.append(step)
        if len(drawn) == 7:
            raise KeyboardInterrupt
        return real(talks, step, count)

    monkeypatch.setattr(Talks, "draw", draw)
    with pytest.raises(KeyboardInterrupt):
        tune(talk / "talk.json", out=talk / "run", settings=settings)
    done = tune(talk / "talk.json", out=talk / "run", settings=settings, resume=True)
    assert drawn[7] == 6 and drawn[-1] == 11  # from the very step that was interrupted
    for name, value in whole.model.state_dict().items():
        assert torch.allclose(value, done.model.state_dict()[name], atol=1e-5), name
