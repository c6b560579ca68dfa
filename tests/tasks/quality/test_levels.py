"""A model is asked for rating words in the form in which it learnt them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fewer.core.errors import FewerError
from fewer.tasks.quality.evaluate import evaluate
from fewer.tasks.quality.levels import LEVEL_QUESTION, LevelForm, form_of, word_tokens
from fewer.tasks.quality.records import Record, qalign_records, soft_records, write_records
from fewer.tasks.quality.settings import TuneSettings
from fewer.tasks.quality.words import PlainWords

SMALL = {"steps": 40, "batch": 8, "quality_width": 4, "grid": 2, "input_size": 32, "learning_rate": 3e-3, "every": 30}
RATE = "How would you rate the quality of this image?"


def said(question: str, answer: str, image: str = "a.png") -> Record:
    return Record("x", ((f"<image>\n{question}", answer),), image)


@pytest.mark.parametrize(
    ("records", "form"),
    [
        ([], LevelForm()),
        (qalign_records({"a.png": 1, "b.png": 5}), LevelForm(RATE, "The quality of the image is")),
        ([said(LEVEL_QUESTION, "good"), said("How is the noise?", "poor")] * 3, LevelForm()),
        ([said("Quality?", "Excellent."), said("Quality?", "poor")], LevelForm("Quality?", "")),
        # a text, a choice, a comparison and words of other questions are no form
        ([said(RATE, "The cat is blurry and noisy and dark in all of its corners, so I call it poor")], LevelForm()),
        ([said(f"{RATE}\nA. good\nB. poor", "A. good")], LevelForm()),
        ([Record("p", ((f"<image><image>\n{RATE}", "good"),), "a.png", others=("b.png",))], LevelForm()),
        ([said("How is the light?", "good")], LevelForm()),
        ([said(RATE, "unfair")], LevelForm()),
    ],
)
def test_the_form_is_that_of_most_conversations(records: list[Record], form: LevelForm) -> None:
    assert form_of(records) == form and LevelForm.read({"question": form.question, "opening": form.opening}) == form


def test_a_form_that_is_none_is_the_usual_one() -> None:
    for told in (None, 3, {}, {"question": 3, "opening": ""}, {"question": "a"}):
        assert LevelForm.read(told) == LevelForm()


def test_words_behind_an_opening() -> None:
    words = PlainWords.of(["The quality is good bad"])
    assert word_tokens(words, ["good", "bad"], "The quality is") == [*words.encode("good"), *words.encode("bad")]
    with pytest.raises(FewerError, match="never saw the words zebra, yak, so it cannot give scores"):
        word_tokens(words, ["zebra", "yak"], "")

    class Merging:  # a tokenizer that joins the opening with what follows
        end = 0

        def encode(self, text: str) -> list[int]:
            return [hash(text)]

    with pytest.raises(FewerError, match="does not keep"):
        word_tokens(Merging(), ["good", "bad"], "The quality is")  # type: ignore[arg-type]


@pytest.mark.parametrize("soft", [False, True])
def test_opinions_converted_as_q_align_does_are_learnt_and_scored(tmp_path: Path, soft: bool) -> None:
    pytest.importorskip("transformers", reason="a language model needs the extra fewer[tune]")
    from fewer.tasks.quality.compressing import open_run
    from fewer.tasks.quality.tuning import tune

    scores = {}
    for i in range(15):
        Image.fromarray(np.full((32, 32, 3), 15 + 16 * i, np.uint8)).save(tmp_path / f"{i}.png")
        scores[f"{i}.png"] = float(i)
    records = soft_records({name: (score, 1.0) for name, score in scores.items()}) if soft else qalign_records(scores)
    write_records(tmp_path / "talk.json", records)
    (tmp_path / "mos.csv").write_text("".join(f"{name},{score}\n" for name, score in scores.items()))
    tune(tmp_path / "talk.json", out=tmp_path / "run", settings=TuneSettings(**SMALL))
    found = evaluate(tmp_path / "run", tmp_path / "mos.csv")
    assert found.numbers["srcc"] > 0.8 and "The quality of the image is" in found.note
    network = open_run(tmp_path / "run")
    assert network is not None and network.meta["levels"]["opening"] == "The quality of the image is"
