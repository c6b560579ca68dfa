"""Flags that hold impossible numbers or names are told in one sentence, before any work."""

from __future__ import annotations

import pytest

from fewer.cli.main import main
from fewer.cli.terminal import printable

HUGE = "9" * 30
FLAGS = {
    "batch": ["select", ".", "--features=f.npy", "--budget=labels=3", "--out=o", "--batch=0"],
    "seed of a queue": ["select", ".", "--features=f.npy", "--budget=labels=3", "--out=o", f"--seed={HUGE}"],
    "side": ["select", ".", "--features=f.npy", "--budget=labels=3", "--out=o", "--input-size=1000000"],
    "seed": ["compress", "fewer/vit-small-16", "--images=.", "--budget=weights=50%", "--out=o", f"--seed={HUGE}"],
    "pattern": ["compress", "fewer/vit-small-16", "--images=.", "--budget=weights=50%", f"--pattern=block:{HUGE}x1"],
    "spacing": ["train", ".", "--out=o", "--spacing=nan,1"],
    "patch": ["train", ".", "--out=o", "--patch=100000,100000"],
    "learning-rate": ["recover", ".", "--learning-rate=1e30"],
    "no file": ["info", "run", "--trust=nothing.py"],
}


@pytest.mark.parametrize("words", FLAGS.values(), ids=FLAGS.keys())
def test_one_sentence(words, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    said = capfd.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1


def test_an_unknown_variable_is_told(monkeypatch, capfd):
    monkeypatch.setenv("FEWER_SEEDD", "3")
    assert main(["list"]) == 2
    assert "did you mean 'FEWER_SEED'" in capfd.readouterr().err


def test_names_cannot_act_on_a_terminal():
    assert printable("a\x1b]0;title\x07\x9b2J\u202egpj.png") == "a\\x1b]0;title\\x07\\x9b2J\\u202egpj.png"
    assert printable("Größe\tµm 图") == "Größe\tµm 图"
