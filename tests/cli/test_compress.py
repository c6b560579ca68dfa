"""Compress: a mistake is told before anything is made, and a file of settings can hold all of a command."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import QUICK


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["net.py:nett", "--budget=weights=50%"], "did you mean 'net'"),
        (["net.py:net", "--budget=weights=50"], "weights=50%"),
        (["net.py:net", "--budget=wieghts=50%"], "did you mean 'weights'"),
        (["net.py:net", "--budget=weights=50%", "--pattern=block:0x4"], "not a pattern"),
        (["net.py:net", "--budget=weights=50%", "--baselines=wandaa"], "did you mean 'wanda'"),
    ],
    ids=["model", "percent", "metric", "pattern", "baseline"],
)
def test_a_mistake_makes_no_folder(compress, words, told: str) -> None:
    found = compress(*words)
    assert found.code == 2 and told in found.err and not Path("run").exists()


def test_a_file_of_settings_holds_a_whole_command(fewer) -> None:
    settings = {word.removeprefix("--").split("=")[0]: word.split("=")[1] for word in QUICK}
    lines = [f"{name} = {value}" for name, value in settings.items() if value.isdecimal()]
    head = ['model = "net.py:net"', 'images = "photos"', 'budget = ["weights=50%"]', "baselines = []"]
    Path("all.toml").write_text("\n".join([*head, *lines]) + "\n")
    told = fewer("compress", "--config=all.toml", "--out=run")
    assert told.code == 0, told.err
    assert "budget met" in told.out and "next" in told.out
    assert "Files become 3 x 16 x 16" in " ".join(told.out.replace("│", " ").split())


def test_published_methods_are_rows_of_the_verdict(fewer) -> None:
    words = [word for word in QUICK if not word.startswith("--baselines")]
    told = fewer(
        "compress", "net.py:net", "--images=photos", "--budget=weights=50%", "--out=run", "--baselines=wanda", *words
    )
    assert told.code == 0, told.err
    assert "Wanda, uniform" in told.out and "As published" in " ".join(told.out.replace("│", " ").split())
