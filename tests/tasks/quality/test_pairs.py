"""Two images in one conversation (Co-Instruct): files, conversion, tuning, and questions about pairs."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fewer.core.errors import FewerError
from fewer.study.pathway import Pathway
from fewer.tasks.quality.convert.build import convert
from fewer.tasks.quality.convert.compare import BETTER_QUESTION, ORDINALS, compare_texts, pair_records
from fewer.tasks.quality.evaluate import evaluate
from fewer.tasks.quality.questions import Question, read_questions, write_questions
from fewer.tasks.quality.records import Record, read_records, write_records
from fewer.tasks.quality.settings import EvaluateSettings, TuneSettings
from tests.support.transformers import need_transformers

HEAD = "The first image: <image>\nThe second image: <image>\n"
LEVELS = ("bad", "poor", "fair", "good", "excellent")


def written(place: Path, values: object) -> Path:
    place.write_text(json.dumps(values))
    return place


def texts(count: int) -> list[Pathway]:
    said = ("The cat is very blurry.", "The cat is sharp.")
    return [Pathway(f"{i}.png", "r", said[i % 2], f"Overall, the quality is {LEVELS[i % 5]}.") for i in range(count)]


def test_records_about_two_images_are_read_and_written(tmp_path: Path) -> None:
    record = Record("b", ((f"{HEAD}Which one?", "The first image"),), "a.png", others=("b.png",))
    write_records(tmp_path / "a.json", [record])
    assert read_records(tmp_path / "a.json") == [record] and record.images == ("a.png", "b.png")
    parts = [
        {"type": "image", "image": "a.png"},
        {"type": "image", "image": "b.png"},
        {"type": "text", "text": "Which?"},
    ]
    chat = [{"role": "user", "content": parts}, {"role": "assistant", "content": "The first image"}]
    read = read_records(written(tmp_path / "c.json", [{"messages": chat}]))
    assert read[0].images == ("a.png", "b.png") and read[0].turns[0][0].count("<image>") == 2


@pytest.mark.parametrize(
    ("image", "question", "told"),
    [
        (["a.png", "b.png"], "<image>\nWhich?", "2 images but not as many <image>"),
        (["a.png", "b.png"], "<image><image><image> Which?", "2 images but not as many <image>"),
        (["a.png"], "Which?", "an image but no single <image>"),
        (["a.png", 3], "<image><image> Which?", "list of such names"),
        (["a.png", ""], "<image><image> Which?", "list of such names"),
        ([f"{i}.png" for i in range(5)], "<image>" * 5, "has 5 images; 4 at most"),
        ({"a": 1}, "<image>", "must be the name of a file"),
    ],
)
def test_images_that_do_not_fit_their_question_are_told(
    tmp_path: Path, image: object, question: str, told: str
) -> None:
    talk = [{"from": "human", "value": question}, {"from": "gpt", "value": "The first image"}]
    with pytest.raises(FewerError, match=told):
        read_records(written(tmp_path / "a.json", [{"image": image, "conversations": talk}]))


def test_comparisons_follow_from_the_texts_and_neither_place_wins_more_often() -> None:
    level = {text.image: text.level for text in texts(12)}
    blurry = {text.image: "blurry" in text.description for text in texts(12)}
    found = compare_texts(texts(12), 60, seed=3)
    wins: Counter[tuple[str, str]] = Counter()
    for record in found:
        asked, answer = record.turns[0][0].removeprefix(HEAD), record.turns[0][1]
        first = answer.rsplit("The ", 1)[-1].startswith("first") if "Compare" in asked else answer == ORDINALS[0]
        better, worse = record.images if first else record.images[::-1]
        if "sharpness" in asked:
            assert blurry[worse] and not blurry[better]
        else:
            assert level[better] > level[worse]
        wins[(asked, "first" if first else "second")] += 1
    for asked in {key[0] for key in wins}:
        assert abs(wins[(asked, "first")] - wins[(asked, "second")]) <= 1
    assert len({asked for asked, _ in wins}) == 3


def test_comparisons_need_texts_that_differ() -> None:
    with pytest.raises(FewerError, match="two images at least"):
        compare_texts(texts(1), 5)
    same = [Pathway(f"{i}.png", "r", "The cat is sharp.", "The quality is good.") for i in range(3)]
    with pytest.raises(FewerError, match="nothing to compare"):
        compare_texts(same, 5)


def test_no_pair_holds_an_image_of_an_evaluation_set() -> None:
    made = convert(texts(6), evaluation=["x/1.png"], pairs=40)
    assert made.counts["comparison"] > 40 and made.dropped["an image of an evaluation set"] == 1
    assert not any("1.png" in record.images for record in made.records)
    left = convert(texts(6), kinds=("pathway",)).without({"2.png"})
    assert {record.image for record in left.records} == {f"{i}.png" for i in (0, 1, 3, 4, 5)}
    with pytest.raises(FewerError, match="all images are of evaluation sets"):
        left.without({f"{i}.png" for i in range(6)})


def test_questions_about_two_images_in_their_public_forms(tmp_path: Path) -> None:
    rows = [
        {"image1": {"path": "a.png"}, "image2": {"path": "b.png"}, "question": "Which is sharper?",
         "option0": "First", "option1": "Second", "option2": "N/A", "correct_choice": "B", "question_type": 1},
        {"img_path": ["a.png", "b.png"], "question": "Which is sharper?", "candidates": ["First", "Second"],
         "correct_ans": "Second", "type": "what"},
    ]  # fmt: skip
    first, second = read_questions(written(tmp_path / "q.json", rows))
    assert first == second and first.images == ("a.png", "b.png") and first.answer == 1
    assert read_questions(write_questions(tmp_path / "w.json", [first])) == [first]
    with pytest.raises(FewerError, match="needs the name of an image"):
        read_questions(written(tmp_path / "x.json", [{**rows[1], "img_path": ["a.png", 3]}]))
    with pytest.raises(FewerError, match="needs the name of an image"):
        read_questions(written(tmp_path / "y.json", [{**rows[1], "img_path": []}]))


SMALL = {"steps": 130, "batch": 8, "quality_width": 4, "grid": 2, "input_size": 32, "learning_rate": 3e-3, "every": 50}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for i in range(10):
        Image.fromarray(np.full((32, 32, 3), 20 + 22 * i, np.uint8)).save(tmp_path / f"{i}.png")
    return tmp_path


def test_a_model_learns_which_of_two_images_is_brighter(photos: Path) -> None:
    pytest.importorskip("transformers", reason="a language model needs the extra fewer[tune]")
    from fewer.tasks.quality.asking import choose
    from fewer.tasks.quality.tuning import load_tuned, tune

    rng = np.random.default_rng(0)
    pairs = [(f"{max(a, b)}.png", f"{min(a, b)}.png") for a, b in rng.integers(0, 10, (40, 2)) if a != b]
    records = [*pair_records(pairs), Record("one", (("<image>\nWhat is it?", "a square"),), "0.png")]
    records.append(Record("none", (("Say something.", "Something"),)))
    write_records(photos / "talk.json", records)
    done = tune(photos / "talk.json", out=photos / "run", settings=TuneSettings(**SMALL))
    assert done.fit.history[-1]["loss"] < 0.5 * float(np.log(2))
    (photos / "pairs.csv").write_text("image,other,better\n8.png,1.png,left\n2.png,9.png,right\n3.png,3.png,same\n")
    scored = evaluate(photos / "run", photos / "pairs.csv", settings=EvaluateSettings(together=True))
    assert scored.numbers["pair accuracy"] == 1.0 and scored.numbers["same in both orders"] == 1.0
    assert "1 pairs look the same" in scored.note
    asked = [Question("9.png", BETTER_QUESTION, ORDINALS, 0, others=("0.png",))]
    again = load_tuned(photos / "run")
    assert choose(again, again.pictures(photos), asked) == [0]
    with pytest.raises(FewerError, match="is no run of fewer tune"):
        evaluate(photos / "talk.json", photos / "pairs.csv", settings=EvaluateSettings(together=True))


def test_batches_hold_conversations_with_as_many_images(photos: Path) -> None:
    from fewer.tasks.quality.talks import Pictures, Talks
    from fewer.tasks.quality.words import PlainWords

    records = [Record(f"n{i}", (("Say.", "No"),)) for i in range(4)]
    records += [Record(f"o{i}", (("<image>\nSay.", "No"),), f"{i}.png") for i in range(4)]
    records += pair_records([("0.png", "1.png"), ("2.png", "3.png")])
    talks = Talks(records, Pictures(photos, 32, 1), PlainWords.of(["Say. No"]), 50, 0)
    seen = Counter()
    for step in range(60):
        drawn = talks.records(step, 2)
        assert len({len(record.images) for record in drawn}) == 1
        batch, count = talks.batch(drawn), len(drawn[0].images)
        assert (batch.views is None) if count == 0 else batch.views.shape == (2, 2 * count, 3, 32, 32)
        seen[count] += 1
    assert all(seen[count] > 8 for count in (0, 1, 2))


def test_the_order_of_two_images_is_seen_and_one_image_is_as_before() -> None:
    from fewer.tasks.quality.encoders import QualityEncoder
    from fewer.tasks.quality.model import QualityModel

    transformers = need_transformers()
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=20, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    model = QualityModel(transformers.LlamaForCausalLM(config), [QualityEncoder(4, 2)], 16, 2).eval()
    a, b = torch.randint(0, 255, (2, 1, 2, 3, 32, 32), dtype=torch.uint8)
    both = model.see(torch.cat([a, b], 1))[0]
    # with an order that says nothing, two images are those of each, one after the other
    assert torch.allclose(both, torch.cat([model.see(a)[0], model.see(b)[0]], 1), atol=1e-5)
    with torch.no_grad():
        model.later.normal_()
    later = model.see(torch.cat([a, b], 1))[0]
    assert torch.allclose(later[:, : both.shape[1] // 2], model.see(a)[0], atol=1e-5)
    moved = later[:, both.shape[1] // 2 :] - model.see(b)[0]
    assert torch.allclose(moved, model.later[0].expand_as(moved), atol=1e-4)
