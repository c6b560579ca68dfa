"""Tokens that name each aspect, what teaches them, and how answers of different length weigh."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from fewer.tasks.quality.encoders import StatisticsEncoder
from fewer.tasks.quality.model import IGNORED, QualityModel
from fewer.tasks.quality.pretraining import draw_examples, learn
from fewer.tasks.quality.readings import READ, ReadingTokens
from fewer.tasks.quality.records import Record, write_records
from fewer.tasks.quality.settings import TuneSettings
from fewer.tasks.quality.talks import Pictures
from fewer.tasks.quality.told import learn_told, what_is_told
from fewer.tasks.quality.words import PlainWords
from tests.support.transformers import need_transformers
from tests.tasks.quality.test_pretraining import scene
from tests.tasks.quality.test_tuning import SMALL, talk  # noqa: F401

transformers = need_transformers()


def said(image: str, *turns: tuple[str, str]) -> Record:
    return Record("r", tuple((f"<image>\n{q}" if i == 0 else q, a) for i, (q, a) in enumerate(turns)), image)


def test_a_reading_shares_the_words_of_its_aspect_and_moves_along_one_direction():
    words, embedding = PlainWords(["noise", "noisy", "quality", "zebra"]), nn.Embedding(8, 6)
    tokens = ReadingTokens(6)
    tokens.settle(words, embedding)
    tokens.own.data.zero_()
    values = torch.zeros(2, len(READ))
    values[1] = 2.0
    found = tokens(values, embedding)
    noise, quality, colour = (READ.index(name) for name in ("noise", "quality", "colour"))
    mean = embedding.weight[words.encode("noise noisy")].mean(0)
    assert torch.allclose(found[0, noise], mean, atol=1e-6)
    assert torch.allclose(found[0, quality], embedding.weight[words.encode("quality")[0]], atol=1e-6)
    assert not found[0, colour].any()  # words that the model does not know say nothing
    assert torch.allclose(found[1] - found[0], 2 * tokens.worse.expand(len(READ), -1), atol=1e-5)


def test_photos_teach_readings_that_are_what_the_reader_says(tmp_path):
    for i in range(3):
        Image.fromarray(scene(i)).save(tmp_path / f"{i}.png")
    data = draw_examples([tmp_path / f"{i}.png" for i in range(3)], 64, grid=2, side=32, seed=3)
    encoder = StatisticsEncoder(8, 2)
    reader = learn(encoder, data, epochs=5)
    with torch.no_grad():
        tokens = encoder.tell(data.whole, data.cells)
        found, (_, aspects, _, levels, _) = encoder.readings(tokens), reader(data.whole, data.cells)
    names = sorted({"colour", "compression", "contrast", "exposure", "integrity", "noise", "sharpness", "texture"})
    for column, name in enumerate(names):
        wanted = (aspects[:, column] - reader.cut[column]) / aspects[:, column].std(correction=0)
        assert torch.allclose(found[:, READ.index(name)], wanted.clamp(-3, 3), atol=1e-3)
    wanted = (levels.mean() - levels) / levels.std(correction=0)
    assert torch.allclose(found[:, READ.index("quality")], wanted.clamp(-3, 3), atol=1e-3)
    assert not found[:, READ.index("composition")].any()  # no distortion is about it


def test_conversations_are_read_by_the_vocabulary():
    records = [
        said("a.png", ("Is this image noisy?", "Yes"), ("How is the sharpness of this image?", "high")),
        said("a.png", ("How is the overall quality of this image?", "poor")),
        said("a.png", ("Describe it.", "The cat is noisy and dark. Overall, the quality is bad.")),
        said("b.png", ("Is this image sharp?\nA. Yes\nB. No\nAnswer with the letter.", "A")),
        said("b.png", ("What is in this image?", "a dog")),
        said("c.png", ("Rate the quality.", "The quality of the image is excellent.")),
        Record("two", (("<image><image>\nWhich is better?", "the first"),), "d.png", others=("a.png",)),
    ]
    told = what_is_told(records)
    assert set(told) == {"a.png", "c.png"}
    values = dict(zip(READ, told["a.png"].tolist(), strict=True))
    assert values["noise"] == 1 and values["sharpness"] == 0 and values["exposure"] == 1
    assert values["quality"] == pytest.approx((0.75 + 1.0) / 2) and np.isnan(values["texture"])
    assert told["c.png"][READ.index("quality")] == 0


def test_what_people_say_teaches_an_encoder_that_holds_on_other_photos(tmp_path):
    from fewer.data.distortions.truth import Applied, distort

    records, noisy = [], []
    for i in range(48):
        noisy.append(bool(i % 2))
        pixels = scene(i, 32)
        Image.fromarray(distort(pixels, [Applied("white-noise", 4)], i) if noisy[-1] else pixels).save(
            tmp_path / f"{i}.png"
        )
        records.append(said(f"{i}.png", ("Is this image noisy?", "Yes" if noisy[-1] else "No")))
    torch.manual_seed(0)
    encoder, pictures = StatisticsEncoder(8, 2), Pictures(tmp_path, 32, 0)
    learn_told(encoder, what_is_told(records[:32]), pictures, [])
    held = torch.from_numpy(np.concatenate([pictures(f"{i}.png") for i in range(32, 48)])).float() / 255
    with torch.no_grad():
        found = encoder.eval().readings(encoder(held))[:, READ.index("noise")]
    assert ((found > 0) == torch.tensor(noisy[32:])).float().mean() > 0.9
    few = StatisticsEncoder(8, 2)
    learn_told(few, what_is_told(records[:3]), pictures, ["0.png", "1.png"])
    assert few.whole_mean.any()  # too little is told: only the units of the statistics


def test_a_frozen_encoder_gives_the_same_tokens_in_a_training():
    encoder, pixels = StatisticsEncoder(8, 2), torch.rand(2, 3, 32, 32)
    assert not torch.equal(encoder.train()(pixels), encoder(pixels))
    encoder.requires_grad_(False)
    model = nn.Sequential(encoder, nn.Dropout()).train()
    assert model.training and torch.equal(encoder(pixels), encoder(pixels))


def small_model() -> QualityModel:
    torch.manual_seed(1)
    config = transformers.LlamaConfig(
        vocab_size=20, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2
    )
    language = transformers.LlamaForCausalLM(config).eval()
    return QualityModel(language, [StatisticsEncoder(4, 2)], 16, 1, readings=True).eval()


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_an_answer_weighs_its_length_to_the_power(power):
    model = small_model()
    ids = torch.tensor([[2, 3, 4, 5, 6, 7], [2, 3, 8, 0, 0, 0], [2, 3, 4, 5, 6, 7]])
    labels = torch.full_like(ids, IGNORED)
    labels[0, 2:6], labels[1, 2] = ids[0, 2:6], 8
    mask = torch.tensor([[1] * 6, [1, 1, 1, 0, 0, 0], [1] * 6])
    with torch.no_grad():
        found = model.loss(None, ids, labels, mask, power)
        logits = model(None, ids, mask)
    each = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="none").view(3, 6)
    long, short = each[0, 2:6].mean(), each[1, 2]
    assert float(found) == pytest.approx(float((4**power * long + short) / (4**power + 1)), abs=1e-5)


def test_an_answer_is_the_most_likely_word_each_time():
    model, views = small_model(), torch.randint(0, 255, (1, 1, 3, 32, 32), dtype=torch.uint8)
    for seen in (views, None):
        made: list[int] = []
        for _ in range(12):
            ids = torch.tensor([[5, 6, 7, *made, 0]])
            made.append(int(model(seen, ids, torch.ones_like(ids))[0, -1].argmax()))
        lengths: list[int] = []
        hook = model.language.register_forward_pre_hook(
            lambda _, __, told, lengths=lengths: lengths.append(told["inputs_embeds"].shape[1]), with_kwargs=True
        )
        assert model.answer(seen, [5, 6, 7], 19, 12) == (made[: made.index(19)] if 19 in made else made)
        hook.remove()
        assert set(lengths[1:]) == {1}  # what was read is not read again


def test_a_run_from_before_there_were_readings_is_still_read(talk):  # noqa: F811
    from fewer.tasks.quality.asking import level_scores
    from fewer.tasks.quality.tuning import load_tuned, tune

    done = tune(talk / "talk.json", out=talk / "run", settings=TuneSettings(**{**SMALL, "steps": 3}, readings=False))
    recipe = json.loads((talk / "run" / "recipe.json").read_text())
    del recipe["settings"]["readings"], recipe["settings"]["answer_power"]
    (talk / "run" / "recipe.json").write_text(json.dumps(recipe))
    again = load_tuned(talk / "run")
    assert again.model.readings is None and again.model.image_tokens == 6
    scores = [level_scores(t, t.pictures(talk), ["0.png", "1.png"]) for t in (done, again)]
    assert np.allclose(*scores, atol=1e-5)


@pytest.mark.parametrize(("side", "crops"), [(32, 0), (90, 2)])
def test_images_that_are_larger_than_a_view_are_seen_in_their_own_pixels_too(tmp_path, side, crops):
    from fewer.tasks.quality.tuning import load_tuned, plan_tuning, tune

    records = []
    for i in range(4):
        Image.fromarray(scene(i, side)).save(tmp_path / f"{i}.png")
        records.append(said(f"{i}.png", ("Is this image noisy?", "No")))
    (tmp_path / "0.png").write_bytes((tmp_path / "1.png").read_bytes())
    settings = TuneSettings(**{**SMALL, "steps": 2})
    assert Pictures(tmp_path, 32, None).larger([f"{i}.png" for i in range(4)]) == bool(crops)
    write_records(tmp_path / "talk.json", records)
    done = tune(tmp_path / "talk.json", out=tmp_path / "run", settings=settings)
    tokens = (1 + crops) * (6 + len(READ))
    assert done.settings.crops == crops and done.model.image_tokens == tokens
    assert any(line.startswith(f"{tokens} tokens") for line in plan_tuning(tmp_path / "talk.json", settings))
    assert load_tuned(tmp_path / "run").settings.crops == crops
    more = tune(tmp_path / "talk.json", settings=settings, start=done)
    assert more.settings.crops == crops
    assert tune(tmp_path / "talk.json", settings=settings.model_copy(update={"crops": 0})).settings.crops == 0


def test_words_of_an_aspect_carry_how_true_they_are():
    words = PlainWords(["is", "this", "image", "noisy", "clean", "in", "out", "of", "focus", "a", "lamp"])
    tokens = ReadingTokens(4)
    tokens.settle(words, nn.Embedding(len(words), 4))
    tokens.true.data.fill_(1.0)
    values = torch.zeros(1, len(READ))
    values[0, READ.index("noise")], values[0, READ.index("sharpness")] = 2.0, 0.5
    ids = torch.tensor([words.encode("is this noisy out of focus a clean lamp")])
    found = tokens.told(ids, values)[0, :, 0].tolist()
    assert found == [0, 0, 2.0, 0, 0, 0.5, 0, -2.0, 0]
    ids = torch.tensor([words.encode("is this in focus")])
    assert tokens.told(ids, values)[0, -1, 0] == -0.5  # the phrase praises, the noun in it only asks
    assert not tokens.told(ids[:, :2], values).any()
    tokens.true.data.zero_()
    tokens.after.data.fill_(1.0)
    ids = torch.tensor([words.encode("is this noisy image out of focus a clean lamp")])
    assert tokens.told(ids, values)[0, :, 0].tolist() == [0, 0, 2.0, 2.0, 2.0, 2.0, 0.5, 0.5, -2.0, -2.0]


def test_one_conversation_is_read_alike_in_a_batch_and_a_word_at_a_time():
    model = small_model()
    model.readings.settle(PlainWords([f"w{i}" for i in range(14)] + ["noisy", "blurry", "dark"]), nn.Embedding(20, 16))
    for part in (model.readings.true, model.readings.after, model.encoders[0].judge.weight):
        part.data.normal_()
    views = torch.randint(0, 255, (2, 1, 3, 32, 32), dtype=torch.uint8)
    ids = torch.tensor([[3, 16, 17, 4], [17, 5, 18, 6]])
    with torch.no_grad():
        both = model(views, ids, torch.ones_like(ids))
        alone = [model(views[i : i + 1], ids[i : i + 1], torch.ones_like(ids[:1])) for i in (0, 1)]
    assert torch.allclose(both, torch.cat(alone), atol=1e-4)
    made = model.answer(views[:1], [3, 16, 17], 19, 6)
    for place, word in enumerate(made):
        text = torch.tensor([[3, 16, 17, *made[:place], 0]])
        assert int(model(views[:1], text, torch.ones_like(text))[0, -1].argmax()) == word
