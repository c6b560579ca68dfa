"""Texts: the vocabulary reads what raters write, and flags find what was planted."""

from __future__ import annotations

import numpy as np
import pytest

from fewer.data.distortions.families import FAMILIES
from fewer.data.distortions.truth import Applied, Truth, draw_recipe, family
from fewer.study import pathway as pathway_module
from fewer.study.pathway import Pathway, check_texts, text_flags
from fewer.study.simulated import SimulatedRater, make_raters, simulate
from fewer.study.vocabulary import ASPECTS, level_of, polarity, statements


@pytest.mark.parametrize("aspect", ASPECTS)
def test_every_word_is_read_as_its_own_aspect(aspect):
    for sign, words in (("good", ASPECTS[aspect].good), ("bad", ASPECTS[aspect].bad)):
        for word in words:
            assert [(s.aspect, s.polarity) for s in statements(f"The lamp is {word}.")] == [(aspect, sign)], word
            turned = statements(f"The lamp is not {word}.")
            assert all(s.polarity != sign for s in turned), word


def test_negation_ends_with_its_clause():
    said = statements("There is no noise, the cat is blurry but the colors are vivid.")
    assert [(s.aspect, s.polarity) for s in said] == [("noise", "good"), ("sharpness", "bad"), ("colour", "good")]
    assert polarity("Neither sharp nor clean.") == -1


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("Overall, very good quality.", 5),
        ("The quality is average.", 3),
        ("good light. The quality is bad.", 1),
        ("good", None),
    ],
)
def test_levels(text, level):
    assert level_of(text) == level


def test_simulated_texts_pass_the_checks_and_name_the_truth():
    rng = np.random.default_rng(0)
    truths = [Truth(f"{i}.png", "p", draw_recipe(rng, clean=0), "cat") for i in range(40)]
    careful = [SimulatedRater("careful", omission=0.0, inconsistency=0.1)]
    for truth, pathway in zip(truths, simulate(truths, careful, 1), strict=True):
        blamed = {s.aspect for s in statements(pathway.description) if s.polarity == "bad"}
        assert blamed == {family(a.family).aspect for a in truth.applied}
        assert pathway.level is not None
        assert {f.what for f in text_flags(pathway)} <= {"contradiction", "too short"}


def test_planted_faults_are_flagged():
    good = "The cat in the centre is sharp and the colours are vivid, with clean surfaces and a well lit background."
    rows = [
        Pathway("a", "r1", good, "Overall, the quality is excellent."),
        Pathway("b", "r1", good, "Overall, the quality is excellent."),
        Pathway("a", "r2", good, "Overall, the quality is bad."),
        Pathway("a", "r3", good.replace("sharp", "very blurry"), "Overall, the quality is good."),
    ]
    flags = {(f.rater, f.image, f.what) for f in check_texts(rows)}
    assert {("r1", "b", "copied"), ("r2", "a", "contradiction"), ("r3", "a", "alone against others")} <= flags
    assert ("r1", "a", "copied") not in flags


def test_raters_differ_and_a_random_one_ignores_the_image():
    truth = Truth("a", "a", (Applied("darken", 5),))
    rng = np.random.default_rng(0)
    assert {SimulatedRater("x", random=True).score(truth, rng) for _ in range(60)} == {1, 2, 3, 4, 5}
    assert len({r.bias for r in make_raters(5)}) == 5 and list(FAMILIES)


def test_copies_are_those_that_a_comparison_of_all_finds():
    rng, words = np.random.default_rng(0), [f"w{i}" for i in range(12)]
    texts = [" ".join(rng.choice(words, 24)) for _ in range(20)]
    # a word changed at the end, in the middle or nowhere, and the same image twice
    texts += [f"{texts[i % 20].rsplit(' ', i % 3)[0]} {'new ' * (i % 3)}".strip() for i in range(40)]
    told = [Pathway(f"{i % 50}.png", "ann", text, "Overall good.") for i, text in enumerate(texts)]
    for alike in (0.5, 0.8, 1.0):
        runs = [pathway_module._shingles(one.text) for one in told]
        expected = {}
        for i, one in enumerate(told):
            for j in range(i):
                if len(runs[i] & runs[j]) / len(runs[i] | runs[j]) >= alike and told[j].image != one.image:
                    expected[i] = f"like that of {told[j].image}"
                    break
        found = [flag.detail for flag in check_texts(told, alike) if flag.what == "copied"]
        assert found == list(expected.values()) and found
