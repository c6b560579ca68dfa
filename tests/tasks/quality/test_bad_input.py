"""What people get wrong, at the command line: one sentence, exit code 2, and nothing is left behind."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from fewer.cli.main import main

pytest.importorskip("transformers", reason="a language model needs the extra fewer[tune]")


@pytest.fixture
def talk(tmp_path, monkeypatch):
    """A folder with one picture and one conversation."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.full((40, 40, 3), 90, np.uint8)).save("a.png")
    rows = [{"id": "1", "image": "a.png", "conversations": [_say("human", "<image>\nDark?"), _say("gpt", "Yes")]}]
    (tmp_path / "talk.json").write_text(json.dumps(rows))
    return tmp_path


def _say(who, text):
    return {"from": who, "value": text}


def sentence(capsys, *words):
    assert main(list(words)) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert len(lines) == 1 and "Traceback" not in lines[0]
    return lines[0]


def test_a_record_that_would_train_blind(talk, capsys):
    (talk / "talk.json").write_text((talk / "talk.json").read_text().replace("<image>\\n", ""))
    assert "no single <image>" in sentence(capsys, "tune", "talk.json", "--out=run")
    assert not (talk / "run").exists()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--clean-photos=nowhere"], "nowhere"),
        (["--clean-photos=empty"], "empty"),
        (["--clean-photos=.", "--quality-encoder=convolutional"], "only the encoder of statistics learns from photos"),
        (["--language=nobody"], "no language model 'nobody'"),
        (["--encoder=nothing"], "no vision encoder 'nothing'"),
        (["--images=empty"], "1 of 1 images are not in empty"),
    ],
)
def test_folders_and_models_that_are_not_there(talk, capsys, options, told):
    (talk / "empty").mkdir()
    assert told in sentence(capsys, "tune", "talk.json", "--out=run", "--steps=1", *options)


def test_answers_outside_of_the_options_and_answers_that_are_none(talk, capsys):
    asked = [{"img_path": "a.png", "question": "Dark?", "candidates": ["Yes", "No"], "correct_ans": "E"}]
    (talk / "asked.json").write_text(json.dumps(asked))
    (talk / "given.json").write_text(json.dumps(["A"]))
    words = ["eval", "given.json", "asked.json", "--task=quality"]
    assert "outside of the options Yes, No" in sentence(capsys, *words)
    (talk / "asked.json").write_text(json.dumps([{**asked[0], "correct_ans": "A"}]))
    (talk / "given.json").write_text("3")
    assert "holds no answers" in sentence(capsys, *words)
    (talk / "given.json").write_text("[")
    assert "given.json" in sentence(capsys, *words)
