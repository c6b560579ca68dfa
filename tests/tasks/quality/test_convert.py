"""Conversion: every item follows from its text, wrong ones are caught, and the data are balanced."""

from __future__ import annotations

import json

import numpy as np
import pytest

from fewer.core.errors import FewerError
from fewer.data.distortions.truth import Truth, draw_recipe
from fewer.study.pathway import Pathway
from fewer.study.simulated import make_raters, simulate
from fewer.tasks.quality.convert.build import convert, evaluation_images
from fewer.tasks.quality.convert.endpoint import EndpointWriter
from fewer.tasks.quality.convert.facts import entails, says
from fewer.tasks.quality.convert.items import check_items
from fewer.tasks.quality.convert.writers import KINDS, LocalWriter, RuleWriter
from fewer.tasks.quality.records import read_records

TEXT = Pathway(
    "a.png",
    "r",
    "The upper left of the cat is very blurry. The whole cat is clearly underexposed. The surfaces are clean.",
    "Overall, the quality of this image is poor.",
)


def pathways(count=60, seed=0):
    rng = np.random.default_rng(seed)
    truths = [Truth(f"{i}.png", "p", draw_recipe(rng), "cat") for i in range(count)]
    return simulate(truths, make_raters(6, seed), 2, seed)


def test_every_item_of_the_rules_passes_the_checks():
    for pathway in pathways():
        for kind in ("what-how", "yes-no"):
            rows = json.loads(RuleWriter().write(kind, pathway, 0))
            items, reasons = check_items(kind, rows, pathway)
            assert not reasons, (pathway.text, reasons, rows)
            for item in items:
                if kind == "what-how":
                    assert entails(item.question, item.answer, pathway.text)
                    assert not any(entails(item.question, option, pathway.text) for option in item.wrong)


def test_conversion_is_balanced_shuffled_and_read_back(tmp_path):
    done = convert(pathways(), seed=1)
    answers = [r.turns[0][1] for r in done.records if r.kind == "yes-or-no"]
    assert answers.count("Yes") == answers.count("No") > 30
    letters = [r.turns[0][1] for r in done.records if r.kind == "how choice"]
    counts = np.array([letters.count(letter) for letter in "ABC"])
    assert counts.min() > 0.2 * counts.sum()
    assert read_records(done.save(tmp_path / "q.json")) == list(done.records)
    assert done.counts["pathway"] == 120 and done.counts["conversation"] > 60
    assert convert(pathways(), seed=1).records == done.records
    assert 0 <= done.unmentioned < 1
    strict = convert(pathways(), unmentioned=False, seed=1)
    assert strict.unmentioned == 0 and strict.dropped["not mentioned in the text"] > 0


@pytest.mark.parametrize(
    ("kind", "row", "reason"),
    [
        ("yes-no", {"question": "Is it blurry?", "answer": "No"}, "contradicts the text"),
        ("yes-no", {"question": "Is it overexposed?", "answer": "Yes"}, "contradicts the text"),
        ("yes-no", {"question": "Is it posterised?", "answer": "Yes"}, "does not say"),
        ("yes-no", {"question": "Is it blurry?", "answer": "Maybe"}, "neither yes nor no"),
        ("what-how", {"question": "Which part?", "answer": "cat"}, "begins with neither"),
        ("what-how", {"question": "What is it?", "answer": "a dog", "false candidates": ["x"]}, "not in the text"),
        (
            "what-how",
            {"question": "How is the noise?", "answer": "high", "false candidates": ["low"]},
            "not in the text",
        ),
        (
            "what-how",
            {"question": "What is blurry?", "answer": "cat", "false candidates": ["the cat", "surfaces"]},
            "no wrong",
        ),
        ("what-how", {"question": "What", "answer": "cat"}, "question mark"),
        ("what-how", {"answer": "cat"}, "no question"),
        ("what-how", "text", "no object"),
    ],
)
def test_bad_items_are_named(kind, row, reason):
    items, reasons = check_items(kind, [row], TEXT)
    assert not items and reason in reasons[0]


def test_wrong_options_that_are_right_go():
    row = {
        "question": "What is blurry?",
        "answer": "upper left",
        "false candidates": ["cat", "dog", "Dog", "upper left"],
    }
    items, _ = check_items("what-how", [row, row], TEXT)
    assert items[0].wrong == ("dog",) and len(items) == 1


def test_a_model_without_json_is_asked_again_then_dropped_and_counted():
    class Mute:
        name, asked = "mute", 0

        def write(self, kind, pathway, attempt):
            self.asked += 1
            if kind == "yes-no" and attempt == 1:
                rows = [{"question": "Is it blurry?", "answer": "Yes"}, {"question": "Is it noisy?", "answer": "No"}]
                return f"Sure: {json.dumps(rows)}"
            return "I would rather not."

    writer = Mute()
    done = convert([TEXT], writer, attempts=3)
    assert writer.asked == 3 + 2 + 3
    assert done.dropped["no JSON of the writer (what-how)"] == 1 and done.counts["yes-or-no"] == 2
    with pytest.raises(FewerError, match="nothing is left"):
        convert([TEXT], writer, kinds=("what-how",))
    with pytest.raises(FewerError, match="unknown kind 'why'"):
        convert([TEXT], kinds=("why",))


def test_evaluation_sets_are_named_by_tables_and_lists(tmp_path):
    (tmp_path / "mos_with_names.txt").write_text("5.5 a.bmp\n4.5 b.bmp\n")
    (tmp_path / "names.txt").write_text("c.png\nd e.png\n")
    (tmp_path / "t.tsv").write_text("file\tMOS\nf.png\t3\n")
    found = evaluation_images([tmp_path / name for name in ("mos_with_names.txt", "names.txt", "t.tsv")])
    assert found == {"a.bmp", "b.bmp", "c.png", "d e.png", "f.png"}


def test_images_of_evaluation_sets_do_not_train():
    done = convert([TEXT, Pathway("x/b.png", "r", TEXT.description, TEXT.conclusion)], evaluation=["b.png"])
    assert {r.image for r in done.records} == {"a.png"} and done.dropped["an image of an evaluation set"] == 1
    with pytest.raises(FewerError):
        convert([TEXT], evaluation=["abc"], hashes={"a.png": "abc"})


def test_endpoint_and_local_model_speak_the_same_protocol():
    seen = []

    def send(url, body):
        seen.append((url, body))
        return {"choices": [{"message": {"content": '[{"question": "Is it blurry?", "answer": "Yes"}]'}}]}

    writer = EndpointWriter("http://localhost:1/v1/", "m", send=send)
    assert convert([TEXT], writer, kinds=("pathway", "yes-no")).counts["pathway"] == 1
    assert seen[0][0] == "http://localhost:1/v1/chat/completions" and TEXT.text in seen[0][1]["messages"][0]["content"]
    with pytest.raises(FewerError, match="OpenAI-compatible"):
        EndpointWriter("http://x/v1", "m", send=lambda *_: {}).ask("hi")
    with pytest.raises(FewerError, match="does not answer"):
        EndpointWriter("http://127.0.0.1:9/v1", "m", timeout=0.5).ask("hi")
    with pytest.raises(FewerError, match="must begin with http"):
        EndpointWriter("file:///etc", "m")
    import torch

    class Tokens:
        def __call__(self, text, return_tensors):
            class Inputs(dict):
                pass

            return Inputs(input_ids=torch.zeros(1, 3, dtype=torch.long))

        def decode(self, ids, skip_special_tokens):
            return "[]" if ids.tolist() == [7] else "?"

    class Model:
        def generate(self, input_ids, **how):
            return torch.cat([input_ids, torch.tensor([[7]])], 1)

    assert LocalWriter(Model(), Tokens(), "tiny").write(KINDS[0], TEXT, 0) == "[]"


def test_opposite_faults_of_one_aspect():
    assert says("It is oversaturated.", "faded") is False and says("It is dull.", "faded") is True
    assert says("It is sharp.", "blurry") is False and says("A cat.", "blurry") is None


def test_no_answer_is_the_likely_one_whatever_the_image_shows():
    """For every claim as many yes as no, and no answer to a how or what that is more frequent than the next one."""
    from collections import Counter

    rng = np.random.default_rng(3)
    truths = [Truth(f"{i}.png", "p", draw_recipe(rng, clean=0.3)) for i in range(300)]
    made = convert(simulate(truths, make_raters(3, 1), 1), kinds=("what-how", "yes-no"), choices=False)
    asked: dict[str, Counter] = {}
    for record in made.records:
        asked.setdefault(record.turns[0][0].removeprefix("<image>\n"), Counter())[record.turns[0][1]] += 1
    for question in ("Is this image blurry?", "Is this image noisy?", "Is this image pixelated?"):
        assert asked[question]["Yes"] == asked[question]["No"] > 5
    for question, answers in asked.items():
        if question.startswith(("How", "What")) and len(answers) > 1:
            first, second = (count for _, count in answers.most_common(2))
            assert first == second


def test_an_empty_text_and_a_placeholder_in_a_text_do_not_train() -> None:
    said = Pathway("a.png", "r", "<image> The cat is very blurry.", "Overall, the quality is poor.")
    done = convert([said, Pathway("b.png", "r", " ", ""), Pathway("c.png", "r", "<image>", "")])
    assert {record.image for record in done.records} == {"a.png"}
    assert done.dropped["an empty text"] == 2
    assert not any("<image>" in answer or not answer for record in done.records for _, answer in record.turns)
