"""Files in the forms of other tools: conversations, questions, descriptions, logits; and fields that are missing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fewer.core.errors import FewerError
from fewer.study.new import new_study
from fewer.study.settings import StudySettings
from fewer.study.tables import read_names
from fewer.study.vocabulary import LEVELS
from fewer.tasks.quality.evaluate import evaluate
from fewer.tasks.quality.questions import read_questions
from fewer.tasks.quality.records import qalign_records, read_records, soft_levels, soft_records
from fewer.tasks.quality.settings import EvaluateSettings
from fewer.tasks.quality.task import Quality


def written(place: Path, values) -> Path:
    text = "\n".join(json.dumps(v) for v in values) if place.suffix == ".jsonl" else json.dumps(values)
    place.write_text(text)
    return place


CHAT = [{"role": "user", "content": "<image>Sharp?"}, {"role": "assistant", "content": "No"}]
PARTS = [
    {"role": "system", "content": "You look at images."},
    {"role": "user", "content": [{"type": "image", "image": "a.png"}, {"type": "text", "text": "Sharp?"}]},
    {"role": "assistant", "content": [{"type": "text", "text": "No"}]},
]
SHARE = [{"from": "user", "value": "<image>\nSharp?"}, {"from": "assistant", "value": "No"}]


@pytest.mark.parametrize(
    ("name", "record"),
    [
        ("a.json", {"messages": CHAT, "images": ["a.png"]}),
        ("a.jsonl", {"messages": CHAT, "image": ["a.png"]}),
        ("a.json", {"id": 3, "messages": PARTS}),
        ("a.jsonl", {"conversations": SHARE, "image": "a.png"}),
        ("a.json", {"query": "<image>Sharp?", "response": "No", "images": ["a.png"]}),
        ("a.json", {"instruction": "<image>", "input": "Sharp?", "output": "No", "images": ["a.png"]}),
        ("a.json", {"query": "<ImageHere>Sharp?", "response": "No", "image": "a.png"}),
        ("a.json", {"conversations": [{"from": "user", "value": "Picture 1: <img>a.png</img>\nSharp?"}, SHARE[1]]}),
    ],
)
def test_conversations_of_other_tools(tmp_path: Path, name: str, record: dict) -> None:
    place = written(tmp_path / name, [record])
    assert Quality().recognises(place)
    (found,) = read_records(place)
    assert found.image == "a.png" and found.turns[0][1] == "No" and found.turns[0][0].count("<image>") == 1


@pytest.mark.parametrize(
    ("record", "told"),
    [
        ({"messages": CHAT, "images": ["a.png", "b.png"]}, "has 2 images but not as many <image>"),
        ({"messages": [{"role": "user", "content": "Sharp?"}, CHAT[1]], "images": ["a.png"]}, "train blind"),
        ({"messages": [{"role": "tool", "content": "x"}, CHAT[1]]}, "turn 0 must be from human"),
        ({"messages": [{"role": "user", "content": [{"type": "video"}]}, CHAT[1]]}, "turn 0 must be from human"),
        ({"text": "x"}, "needs conversations"),
        ({"messages": CHAT}, "has <image> in a question but names no image; it would train blind"),
        ({"messages": CHAT, "image": None}, "it would train blind"),
        ({"messages": [{"role": "user", "content": "<video>\nSharp?"}, CHAT[1]], "video": "a.mp4"}, "about a video"),
        ({"conversations": SHARE, "image": "a.png", "videos": ["a.mp4"]}, "about a video"),
        ({"query": "Sharp?", "response": "No", "history": "x"}, "needs conversations"),
    ],
)
def test_conversations_that_cannot_be_read_are_told(tmp_path: Path, record: dict, told: str) -> None:
    with pytest.raises(FewerError, match=told):
        read_records(written(tmp_path / "a.json", [record]))
    with pytest.raises(FewerError, match="no conversation"):
        read_records(written(tmp_path / "b.json", []))


def test_answers_about_one_image_are_matched_by_its_name(tmp_path: Path) -> None:
    rows = [{"img_path": f"{n}.png", "question": q, "candidates": ["Yes", "No"], "correct_ans": a}
            for n, q, a in (("a", "Sharp?", "Yes"), ("a", "Noisy?", "No"), ("b", "Sharp?", "No"))]  # fmt: skip
    asked = written(tmp_path / "q.json", rows)
    order = (2, 0, 1)  # the answers of another tool come image by image, and not as they were asked
    turned = [{"image": rows[i]["img_path"], "answer": rows[i]["correct_ans"]} for i in order]
    scored = evaluate(written(tmp_path / "a.json", turned), asked).perception
    assert scored is not None and scored.accuracy == 1.0
    odd = [{"image": {"path": "a.png"}, "answer": row["correct_ans"]} for row in rows]  # names that are none: in order
    scored = evaluate(written(tmp_path / "odd.json", odd), asked).perception
    assert scored is not None and scored.accuracy == 1.0


def test_too_few_answers_and_no_scores_are_told(tmp_path: Path) -> None:
    golden = written(tmp_path / "g.json", [{"img_path": f"{n}.png", "golden_desc": "sharp"} for n in "ab"])
    with pytest.raises(FewerError, match="holds 1 answers and the data ask for 2"):
        evaluate(written(tmp_path / "one.json", ["sharp"]), golden)
    with pytest.raises(FewerError, match="there are no scores"):
        qalign_records({})
    with pytest.raises(FewerError, match="there are no scores"):
        soft_records({})


def test_questions_of_other_tools(tmp_path: Path) -> None:
    rows = [
        {"image_path": "a.png", "question": "Sharp?", "options": ["Yes", "No"], "answer": "B"},
        {"image": "a.png", "question": "Sharp?", "choices": {"B": "No", "A": "Yes"}, "answer": 1},
        {"img_name": "a.png", "question": "Sharp?", "candidates": ["Yes", "No"], "correct_ans": "No"},
    ]
    for values in (rows, {"questions": rows, "version": 2}):
        found = read_questions(written(tmp_path / "q.json", values))
        assert [q.answer for q in found] == [1, 1, 1] and {q.options for q in found} == {("Yes", "No")}
    with pytest.raises(FewerError, match="question 0 needs the name of an image"):
        read_questions(written(tmp_path / "q.json", [{"question": "Sharp?", "options": ["Yes", "No"]}]))
    with pytest.raises(FewerError, match="has 0 options"):
        read_questions(written(tmp_path / "q.json", [{"image": "a", "question": "Sharp?", "answer": "A"}]))


def test_descriptions_are_judged_by_the_verb(tmp_path: Path) -> None:
    golden = written(
        tmp_path / "golden.json",
        [{"img_path": f"{n}.png", "golden_desc": "The cat is blurry. The quality is poor."} for n in "ab"],
    )
    good = {"a.png": "A blurry cat. Overall the quality is poor.", "b.png": "The cat is sharp. The quality is good."}
    predicted = {"folder": "x", "images": {n: {"text": t, "score": 2.0} for n, t in good.items()}, "skipped": []}
    listed = [{"image": n, "answer": t} for n, t in reversed(good.items())]
    sums = []
    for place, values in enumerate((good, predicted, listed, list(good.values()))):
        found = evaluate(written(tmp_path / f"{place}.json", values), golden, out=tmp_path / f"out{place}")
        assert found.what == "descriptions" and "local rules" in found.note and len(found.details) == 2
        sums.append(found.numbers["sum of 6"])
    assert len(set(sums)) == 1 and 0 < sums[0] < 6
    with pytest.raises(FewerError, match=r"no answer about a\.png"):
        evaluate(written(tmp_path / "other.json", {"c.png": "Blurry."}), golden)
    with pytest.raises(FewerError, match="row 1 has no answer"):
        evaluate(written(tmp_path / "gap.json", [{"answer": "x"}, {"image": "b.png"}]), golden)
    with pytest.raises(FewerError, match="give --judge-model"):
        evaluate(tmp_path / "0.json", golden, settings=EvaluateSettings(judge="http://localhost:1/v1"))


def test_logits_of_two_three_and_five_words(tmp_path: Path) -> None:
    names = [f"{half}/{i}.png" for half in ("game", "movie") for i in range(4)]
    (tmp_path / "mos.csv").write_text("".join(f"{name},{i % 4}\n" for i, name in enumerate(names)) + "gone.png,3\n")
    rows = [{"img_path": name, "logit_good": float(i % 4), "logit_poor": 0.0} for i, name in enumerate(names)]
    two = evaluate(written(tmp_path / "2.json", rows), tmp_path / "mos.csv")
    assert two.numbers["srcc"] == 1.0 and "Q-Bench" in two.note and "1 images of mos.csv have no score" in two.note
    three = [row | {"logit_average": 1.0} for row in rows]
    assert "Q-Boost" in evaluate(written(tmp_path / "3.json", three), tmp_path / "mos.csv").note
    words = ("excellent", "good", "fair", "poor", "bad")
    five = [{"image": n, "logits": {w.title(): float(-abs(k - i % 4)) for k, w in enumerate(words)}}
            for i, n in enumerate(names)]  # fmt: skip
    aligned = evaluate(written(tmp_path / "5.json", five), tmp_path / "mos.csv", settings=EvaluateSettings(halves=True))
    assert aligned.numbers["srcc"] == -1.0 and "Q-Align" in aligned.note
    for settings, told in ((EvaluateSettings(words="five"), "need the logit of excellent"),):
        with pytest.raises(FewerError, match=told):
            evaluate(tmp_path / "2.json", tmp_path / "mos.csv", settings=settings)
    del rows[3]["logit_poor"]
    with pytest.raises(FewerError, match=r"row 3 .*has no logit of poor"):
        evaluate(written(tmp_path / "gap.json", rows), tmp_path / "mos.csv")
    with pytest.raises(FewerError, match="row 0 has no name"):
        evaluate(written(tmp_path / "gap.json", [{"logit_good": 1, "logit_poor": 2}]), tmp_path / "mos.csv")


def test_a_study_of_chosen_images(tmp_path: Path) -> None:
    (tmp_path / "photos" / "ä b").mkdir(parents=True)
    names = [f"ä b/{i}.png" for i in range(6)]
    for i, name in enumerate(names):
        Image.fromarray(np.full((20, 20, 3), 40 * i, np.uint8)).save(tmp_path / "photos" / name)
    (tmp_path / "queue.csv").write_text(
        "round,rank,name,status\n" + "".join(f"1,{i},{name},waiting\n" for i, name in enumerate(names[:3]))
    )
    (tmp_path / "plain.txt").write_text("\n".join(names[:2]))
    assert read_names(tmp_path / "queue.csv") == names[:3] and read_names(tmp_path / "plain.txt") == names[:2]
    quick = StudySettings(raters=1, training=False)
    made = new_study(tmp_path / "s", tmp_path / "photos", quick, only=names[:3], gold={names[5]: 2})
    assert made.images == 4
    with pytest.raises(FewerError, match=r"is no image below .*did you mean"):
        new_study(tmp_path / "t", tmp_path / "photos", quick, only=["ä b/9.png"])


def test_pairs_of_a_study_are_ordered_by_scores(tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text(
        "rater,image,other,better\nr,a.png,b.png,left\nr,b.png,c.png,right\nr,a.png,c.png,same\nr,a.png,d.png,left\n"
    )
    scored = {"images": {n: {"text": "", "score": v} for n, v in (("a.png", 3.0), ("b.png", 2.0), ("c.png", 1.0))}}
    place = written(tmp_path / "told.json", scored)
    found = evaluate(place, tmp_path / "pairs.csv", out=tmp_path / "out")
    assert found.numbers == {"pair accuracy": 0.5, "chance": 0.5}
    assert "1 pairs look the same, 1 have no score" in found.note
    (tmp_path / "mos.csv").write_text("a.png,5\nb.png,4\nc.png,1\n")
    assert evaluate(place, tmp_path / "mos.csv").numbers["srcc"] == 1.0
    (tmp_path / "pairs.csv").write_text("image,other,better\na.png,b.png,first\n")
    with pytest.raises(FewerError, match="line 2 needs image, other, and left"):
        evaluate(place, tmp_path / "pairs.csv")


def test_soft_levels_keep_the_mean_and_are_kept_by_copies() -> None:
    scores, wide = np.array([1.4, 3.0, 3.7, 4.9]), np.array([0.3, 0.8, 0.5, 0.05])
    found = soft_levels(scores, wide, 1, 5)
    assert np.allclose(found.sum(1), 1) and (found >= 0).all()
    assert np.allclose((found @ np.arange(1, 6))[1:3], scores[1:3], atol=1e-6)
    # where nothing is beyond the ends, it is the normal distribution between the borders of the levels
    rng = np.random.default_rng(0)
    drawn = np.clip(np.rint(rng.normal(3.0, 0.8, 200_000)), 1, 5).astype(int)
    assert np.allclose(found[1], np.bincount(drawn, minlength=6)[1:] / 200_000, atol=0.01)
    made = soft_records({f"{i}.png": (s, w) for i, (s, w) in enumerate(zip(scores, wide, strict=True))}, 20, 1, 5)
    shares = [sum(LEVELS[k] in r.turns[0][1] for r in made if r.image == "1.png") / 20 for k in range(5)]
    assert len(made) == 80 and np.allclose(shares, found[1], atol=0.05)
    with pytest.raises(FewerError, match="deviation of 0 or more"):
        soft_levels([1, 2], [-1, 0])


@pytest.mark.parametrize(
    "question",
    [
        "How do I use the <video> tag?",
        "What stands for the picture, <image> or <img></img>?",
        "Does <img>logo</img> show a logo?",
    ],
)
def test_tags_that_are_words_of_a_text_are_no_pictures(tmp_path: Path, question: str) -> None:
    """Conversations without a picture are mixed in, and some are about code."""
    for name, more in (("a.json", {}), ("b.json", {"image": "a.png"})):
        asked = question if not more else f"<image>\nSharp? And: {question.split(',')[0]}"
        record = {"conversations": [{"from": "human", "value": asked}, {"from": "gpt", "value": "No"}], **more}
        (tmp_path / name).write_text(json.dumps([record]))
        (found,) = read_records(tmp_path / name)
        assert found.image == more.get("image", "") and question.split(",")[0] in found.turns[0][0]
