"""Tuning a tiny model from nothing on the CPU: the loss, the layout, runs that are read back."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

import fewer
from fewer.core.errors import FewerError
from fewer.tasks.quality.baselines import RegressionHead, flatten, pixel_statistics
from fewer.tasks.quality.doctor import checkup
from fewer.tasks.quality.evaluate import evaluate
from fewer.tasks.quality.questions import Question, write_questions
from fewer.tasks.quality.readings import READ
from fewer.tasks.quality.records import Record, write_records
from fewer.tasks.quality.settings import EvaluateSettings, TuneSettings
from fewer.tasks.quality.views import places, views
from tests.support.shared_data import shared_data

pytest.importorskip("transformers", reason="a language model needs the extra fewer[tune]")

SMALL = {"steps": 40, "batch": 8, "quality_width": 4, "grid": 2, "input_size": 32, "every": 20, "learning_rate": 3e-3}


@pytest.fixture
def talk(tmp_path):
    """Dark and bright pictures, and records that say which is which."""
    records, questions = [], []
    for i in range(16):
        value = 40 if i % 2 else 210
        noise = np.random.default_rng(i).integers(-20, 20, (32, 32, 3))
        Image.fromarray((value + noise).astype(np.uint8)).save(tmp_path / f"{i}.png")
        word, level = ("dark", "poor") if i % 2 else ("bright", "good")
        records.append(Record(f"q{i}", (("<image>\nHow is the light?", word),), f"{i}.png"))
        records.append(Record(f"l{i}", (("<image>\nHow is the overall quality of this image?", level),), f"{i}.png"))
        questions.append(Question(f"{i}.png", "How is the light?", ("bright", "dark"), i % 2, "how", "distortion"))
    records.append(Record("words", (("excellent fair bad", "excellent fair bad"),)))
    write_records(tmp_path / "talk.json", records)
    write_questions(tmp_path / "asked.json", questions)
    (tmp_path / "mos.csv").write_text("".join(f"{i}.png,{1 if i % 2 else 5}\n" for i in range(16)))
    return tmp_path


def test_a_tiny_model_learns_to_see_light_and_its_run_is_read_back(talk):
    from fewer.tasks.quality.tuning import load_tuned, plan_tuning, tune

    settings = TuneSettings(**SMALL)
    assert "of memory (modelled" in plan_tuning(talk / "talk.json", settings)[2]
    done = tune(talk / "talk.json", out=talk / "run", settings=settings)
    assert done.fit.history[-1]["loss"] < 0.5 * done.fit.history[0]["loss"] and "images/s" in done.lines()[1]
    assert "of memory at most" in done.lines()[1] and done.facts["memory_peak"] > 1e8
    scored = evaluate(talk / "run", talk / "asked.json", out=talk / "eval")
    assert scored.perception.accuracy == 1.0
    assert json.loads((talk / "eval" / "evaluation.json").read_text())["questions"]["prompts"] == ["How is the light?"]
    assert evaluate(talk / "run", talk / "mos.csv").numbers["srcc"] > 0.8
    two = evaluate(talk / "run", talk / "mos.csv", settings=EvaluateSettings(words="two"))
    assert "Q-Bench" in two.note and -1 <= two.numbers["srcc"] <= 1
    letters = evaluate(talk / "run", talk / "asked.json", settings=EvaluateSettings(way="letters"))
    assert letters.perception.rows["all"]["substring"] is not None
    again = load_tuned(talk / "run")
    ids = torch.tensor([again.words.encode("How is the light?\nbright")])
    seen = torch.from_numpy(again.pictures(talk)("0.png")[None])
    assert torch.allclose(
        again.model(seen, ids, torch.ones_like(ids)), done.model(seen, ids, torch.ones_like(ids)), atol=1e-3
    )
    (talk / "run" / "model.safetensors").write_bytes(b"x")
    with pytest.raises(FewerError, match="damaged"):
        load_tuned(talk / "run")


def test_the_loss_is_at_the_answers_alone_and_does_not_depend_on_padding(talk):
    from fewer.tasks.quality.building import build
    from fewer.tasks.quality.model import IGNORED
    from fewer.tasks.quality.records import read_records
    from fewer.tasks.quality.talks import Pictures, Talks

    torch.manual_seed(0)
    records = read_records(talk / "talk.json")
    settings = TuneSettings(**SMALL)
    model, words = build(settings, records)
    model.eval()
    talks = Talks(records, Pictures(talk, 32, 0), words, 50, 0)
    long = Record(
        "x", (("<image>\nHow is the overall quality of this image? How is the light?", "good good bad"),), "0.png"
    )
    short = records[0]
    with torch.no_grad():
        both = talks.batch([short, long])
        logs = model(both.views, both.ids, both.mask).log_softmax(2)
        one = talks.batch([short])
        alone = model.loss(*one)
    asked = words.encode("How is the light?\n")
    assert one.labels[0, : len(asked)].eq(IGNORED).all()
    told = one.labels[0, len(asked) :]
    assert told.tolist() == [*words.encode("bright"), words.end]
    brute = -logs[0, torch.arange(len(asked), len(asked) + 2), told].mean()
    assert float(brute) == pytest.approx(float(alone), abs=1e-5)
    sums, lengths = model.likelihood(*one)
    assert float(-sums[0] / lengths[0]) == pytest.approx(float(alone), abs=1e-5)
    assert {bool(talks.draw(step, 4).views is None) for step in range(120)} == {True, False}


def test_after_trains_other_tasks_first(talk):
    from fewer.tasks.quality.tuning import tune

    write_records(talk / "high.json", [Record("h", (("Tell a joke.", "No joke."),))] * 4)
    made = {}
    for strategy in ("mix", "after"):
        chosen = TuneSettings(**{**SMALL, "steps": 4}, high_level=str(talk / "high.json"), strategy=strategy)
        made[strategy] = tune(talk / "talk.json", settings=chosen).facts["images_per_second"]
    assert all(value > 0 for value in made.values())


def test_a_question_that_fills_the_longest_conversation_teaches_nothing_and_is_told(talk):
    from fewer.tasks.quality.asking import choose
    from fewer.tasks.quality.tuning import tune

    long = [Record("x", (("<image>\n" + "word " * 50, "bright"),), "0.png")]
    settings = TuneSettings(**{**SMALL, "steps": 3}, longest=20, images=str(talk))
    done = tune(long, settings=settings)
    assert done.fit.history[-1]["loss"] == 0 and any("24 conversations" in line for line in done.lines())
    # a question that is asked is read to its end, so that its options differ
    asked = [Question("0.png", "word " * 50 + "?", ("word", "bright"), 1)]
    assert len(choose(done, done.pictures(talk), asked)) == 1
    from fewer.tasks.quality.asking import _likelihoods

    sums, lengths = _likelihoods(done, done.pictures(talk), ["0.png"], asked[0].text, asked[0].options)
    assert lengths == [2, 2] and sums[0] != sums[1]


def test_a_run_of_one_image_only_is_still_read(talk):
    from safetensors.torch import load_file, save_file

    from fewer.tasks.quality.tuning import load_tuned, tune

    tune(talk / "talk.json", out=talk / "run", settings=TuneSettings(**{**SMALL, "steps": 2}))
    kept = load_file(talk / "run" / "model.safetensors")
    del kept["later"]  # runs of earlier versions have no such weights
    save_file(kept, talk / "run" / "model.safetensors")
    assert not load_tuned(talk / "run").model.later.any()


def test_lora_and_a_vision_encoder_of_transformers(talk, tmp_path):
    pytest.importorskip("peft", reason="LoRA needs peft")
    import transformers

    from fewer.tasks.quality.building import _adapted, _encoder
    from fewer.tasks.quality.encoders import QualityEncoder
    from fewer.tasks.quality.model import QualityModel

    config = transformers.LlamaConfig(
        vocab_size=20, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    language = _adapted(transformers.LlamaForCausalLM(config), 2)
    vision = transformers.ViTConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, image_size=32, patch_size=8
    )
    transformers.ViTModel(vision).save_pretrained(tmp_path / "vit")
    encoder = _encoder(transformers, TuneSettings(**{**SMALL, "encoder": str(tmp_path / "vit")}))
    model = QualityModel(language, [QualityEncoder(4, 2), encoder], 16, 1)
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert not any(name.startswith("encoders.1") for name in trained)
    assert all("lora" in name for name in trained if name.startswith("language"))
    ids = torch.tensor([[1, 2, 3]])
    assert model(torch.zeros(1, 1, 3, 32, 32, dtype=torch.uint8), ids, torch.ones_like(ids)).shape == (1, 3, 20)
    assert model.image_tokens == 6 + 5


def test_the_built_in_dinov2_stands_beside_the_encoder_of_quality(talk, monkeypatch):
    from fewer.models import builtin
    from fewer.models.vit import VisionTransformer
    from fewer.tasks.quality.asking import level_scores
    from fewer.tasks.quality.compressing import build_scorer, open_run
    from fewer.tasks.quality.tuning import load_tuned, tune

    shape = {"image_size": 28, "patch_size": 14, "width": 16, "depth": 1, "heads": 2, "layer_scale": 1.0}
    torch.manual_seed(0)
    state = VisionTransformer(**shape).state_dict()
    entry = builtin.MODELS["dinov2-small"]
    small = builtin.Builtin(VisionTransformer, shape, lambda: dict(state), entry.preprocess, "features")
    monkeypatch.setitem(builtin.MODELS, "dinov2-small", small)
    settings = TuneSettings(**{**SMALL, "steps": 2}, encoder="fewer/dinov2-small", crops=1)
    done = tune(talk / "talk.json", out=talk / "run", settings=settings)
    assert done.model.image_tokens == 2 * (6 + 5 + len(READ))
    again, names = load_tuned(talk / "run"), [f"{i}.png" for i in range(4)]
    scores = level_scores(again, again.pictures(talk), names)
    assert np.allclose(scores, level_scores(done, done.pictures(talk), names), atol=1e-5)
    loaded = open_run(talk / "run")
    rebuilt = build_scorer(loaded.source["name"], loaded.source["args"])
    assert {n: p.shape for n, p in rebuilt.state_dict().items()} == {
        n: p.shape for n, p in loaded.model.state_dict().items()
    }
    with pytest.raises(FewerError, match="gives no tokens"):
        tune(talk / "talk.json", settings=TuneSettings(encoder="fewer/mobilenet-v2"))


def test_wrong_names_are_one_sentence(talk):
    from fewer.tasks.quality.tuning import tune

    with pytest.raises(FewerError, match="no language model 'gpt'"):
        tune(talk / "talk.json", settings=TuneSettings(language="gpt"))
    with pytest.raises(FewerError, match="no vision encoder"):
        tune(talk / "talk.json", settings=TuneSettings(encoder="clip"))
    record = Record("x", (("<image>\nHow?", "bad"),), "../../etc/passwd")
    with pytest.raises(FewerError, match="lies outside"):
        tune([record], settings=TuneSettings(**SMALL, images=str(talk)))
    with pytest.raises(FewerError, match="--high-level"):
        tune(talk / "talk.json", settings=TuneSettings(**SMALL, strategy="after"))


@pytest.mark.parametrize("name", ["none.png", "x" * 300, "sub/0.png", "0.png/1.png"])
def test_missing_images_are_told_before_anything_is_trained(talk, name):
    from fewer.tasks.quality.tuning import plan_tuning, tune

    records = [Record("a", (("<image>\nHow?", "bad"),), "0.png"), Record("b", (("<image>\nHow?", "bad"),), name)]
    write_records(talk / "some.json", records)
    settings = TuneSettings(**SMALL, language="no-such-model")
    for act in (lambda: tune(talk / "some.json", settings=settings), lambda: plan_tuning(talk / "some.json", settings)):
        with pytest.raises(FewerError, match=r"1 of 2 images are not in .*--images"):
            act()
    records[1] = Record("b", (("<image>\nHow?", "bad"),), "a\0b.png")
    with pytest.raises(FewerError, match="null character"):
        tune(records, settings=TuneSettings(**SMALL, images=str(talk)))


def test_views_keep_native_pixels():
    pixels = np.random.default_rng(0).integers(0, 255, (50, 80, 3), np.uint8)
    found = views(pixels, 32, 3)
    assert found.shape == (4, 3, 32, 32)
    assert (found[2].transpose(1, 2, 0) == pixels[:32, :32]).all()
    assert (found[3].transpose(1, 2, 0) == pixels[:32, -32:]).all()
    assert (views(pixels, 96, 0)[0].transpose(1, 2, 0)[23:73, 8:88] == pixels).all()
    with pytest.raises(FewerError):
        places(10, 10, 5, 10)


def test_doctor_names_what_is_missing_and_one_sided(talk):
    assert checkup(talk / "talk.json").healthy
    records = [Record(str(i), (("<image>\nIs it?", "Yes"),), "gone.png") for i in range(30)]
    write_records(talk / "bad.json", records)
    found = checkup(talk / "bad.json")
    assert not found.healthy and "--images FOLDER" in found.errors[0] and len(found.warnings) == 2
    write_records(talk / "bad.json", [*records, Record("y", (("<image>\nIs it?", "No"),), "0.png")])
    assert "gone.png" in checkup(talk / "bad.json").errors[0]
    (talk / "apart").mkdir()
    (talk / "talk.json").rename(talk / "apart" / "talk.json")
    assert not checkup(talk / "apart" / "talk.json").healthy
    assert fewer.doctor(talk / "apart" / "talk.json", task="quality", images=talk).healthy
    with pytest.raises(FewerError, match="leave it out"):
        fewer.doctor(talk, task="classify", images=talk)


def test_regression_on_pixel_statistics_tells_blur_from_noise():
    from fewer.data.distortions.truth import Applied, distort

    base = np.kron(np.random.default_rng(0).integers(0, 255, (8, 8, 3), np.uint8), np.ones((8, 8, 1), np.uint8))
    blurred = [distort(base, [Applied("gaussian-blur", s)], s) for s in (1, 2, 3, 4, 5)]
    stats = np.stack([pixel_statistics(image) for image in blurred])
    assert (np.diff(stats[:, 6]) < 0).all()
    fitted = RegressionHead(1e-3).fit(stats, [1, 2, 3, 4, 5])
    assert np.corrcoef(fitted.predict(stats), [1, 2, 3, 4, 5])[0, 1] > 0.95


def test_sampling_flattens_the_histogram_of_koniq_as_the_paper_does():
    values = np.load(shared_data("iqa_mos_tables/mos.npz"), allow_pickle=False)["KonIQ_10k_score"].astype(float)
    scores = 100 * (values - values.min()) / (values.max() - values.min())
    chosen = scores[flatten(scores, 5182)]
    # the paper's table: 58.73 +- 15.43 of all become 49.53 +- 15.72 of 5,182
    assert len(chosen) == 5182 and chosen.mean() < scores.mean() - 3 and chosen.std() > scores.std()

    def spread(x):
        count = np.histogram(x, 20, (0, 100))[0] / len(x)
        return float((count**2).sum())

    assert spread(chosen) < spread(scores)


@pytest.mark.parametrize(("records", "count"), [(64, 4), (13, 4), (3, 5)])
def test_every_record_comes_once_before_any_again_and_long_ones_stand_together(tmp_path, records, count):
    from fewer.tasks.quality.talks import Pictures, Talks
    from fewer.tasks.quality.words import PlainWords

    told = [Record(str(i), (("q", "long " * 40 if i % 4 == 0 else "a"),)) for i in range(records)]
    talks = Talks(told, Pictures(tmp_path, 32, 0), PlainWords(["q", "a", "long"]), 200, seed=1)
    steps = [talks._pick(talks.groups[0], step, count) for step in range(8)]
    picked = [record.id for step in steps for record in step]
    times = [picked.count(str(i)) for i in range(records)]
    assert len(picked) == 8 * count and max(times) - min(times) <= 1
    mixed = sum(len({len(r.turns[0][1]) for r in step}) > 1 for step in steps)
    assert mixed <= 1
    assert [r.id for r in talks._pick(talks.groups[0], 5, count)] == [r.id for r in steps[5]]


def test_it_learns_thirty_two_questions_by_heart(tmp_path):
    """Wrong positions, masks or image tokens would show here: the answers follow from the images alone, at random."""
    from fewer.tasks.quality.asking import choose
    from fewer.tasks.quality.tuning import tune

    rng = np.random.default_rng(4)
    records, questions = [], []
    for i in range(32):
        Image.fromarray(rng.integers(0, 255, (4, 4, 3), np.uint8)).resize((32, 32), 0).save(tmp_path / f"{i}.png")
        right = int(rng.integers(2))
        records.append(Record(str(i), (("<image>\nIs it noisy?", ("Yes", "No")[right]),), f"{i}.png"))
        questions.append(Question(f"{i}.png", "Is it noisy?", ("Yes", "No"), right, "yes-or-no"))
    settings = TuneSettings(**{**SMALL, "steps": 150, "quality_width": 8, "images": str(tmp_path)})
    tuned = tune(records, settings=settings)
    assert choose(tuned, tuned.pictures(tmp_path), questions) == [q.answer for q in questions]


def test_a_tuned_model_is_compressed_and_asked_again(talk):
    from fewer.engine.settings import Settings
    from fewer.tasks.quality.asking import choose, level_scores
    from fewer.tasks.quality.scorer import LevelScorer, views_of
    from fewer.tasks.quality.tuning import tune

    tuned = tune(talk / "talk.json", settings=TuneSettings(**SMALL | {"steps": 20}))
    pictures, names = tuned.pictures(talk), [f"{i}.png" for i in range(16)]
    before = level_scores(tuned, pictures, names)
    sizes = {"calibration": 4, "sensing": 2, "heldout": 4, "additivity": 0, "sparsities": (0.5,), "probes": 1}
    quick = Settings(**sizes, baselines=(), workers=1, allocator="uniform", estimator="taylor", compensation="none")
    scorer = LevelScorer(tuned)
    wanted = scorer(views_of(pictures, names))
    done = fewer.compress(scorer, views_of(pictures, names), "weights=70%", settings=quick)
    small = LevelScorer.put_into(tuned, done.model)
    zeros = [float((p == 0).float().mean()) for n, p in small.model.named_parameters() if n.endswith("_proj.weight")]
    assert max(zeros) > 0.1 and torch.equal(scorer(views_of(pictures, names)), wanted)
    after = level_scores(small, pictures, names)
    assert np.corrcoef(before, after)[0, 1] > 0.9
    asked = [Question("0.png", "How is the light?", ("bright", "dark"), 0)]
    assert choose(small, pictures, asked) == choose(tuned, pictures, asked)


@pytest.mark.parametrize("meta", ["quality", 3, None, ["task"]])
def test_a_recipe_with_something_else_in_place_of_its_facts_is_told(tmp_path, meta):
    from fewer.tasks.quality.tuning import load_tuned

    (tmp_path / "recipe.json").write_text(json.dumps({"meta": meta, "settings": {}}), "utf-8")
    with pytest.raises(FewerError, match="is no run of fewer tune"):
        load_tuned(tmp_path)


def test_weights_of_a_gguf_file_are_plain_numbers(tmp_path, monkeypatch):
    import transformers

    from fewer.tasks.quality.language import open_language

    (tmp_path / "a.gguf").write_bytes(b"")
    config = transformers.LlamaConfig(
        vocab_size=20, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    asked = []

    def load(**where):
        asked.append(where)
        made = transformers.LlamaForCausalLM(config).to(torch.bfloat16)
        made.is_quantized = True  # as transformers 5 calls them, though they are not
        made.config.quantization_config = {"quant_method": "gguf"}
        return made

    class Tokens:
        eos_token_id = 1

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", load)
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda **where: Tokens())
    model, _ = open_language(str(tmp_path))
    assert asked[0]["gguf_file"] == "a.gguf" and asked[0]["local_files_only"] is True
    assert {p.dtype for p in model.parameters()} == {torch.float32} and model.float() is model.to("cpu")
    assert getattr(model.config, "quantization_config", None) is None


def test_mixed_precision_reaches_the_language_model(talk):
    """The loss is no forward pass: left alone, ``--precision bf16`` changed nothing."""
    from fewer.tasks.quality.tuning import tune

    kinds = set()
    handle = torch.nn.modules.module.register_module_forward_hook(
        lambda module, args, out: kinds.add(out.dtype) if isinstance(module, torch.nn.Linear) else None
    )
    try:
        tune(talk / "talk.json", settings=TuneSettings(**{**SMALL, "steps": 1, "precision": "bf16"}))
    finally:
        handle.remove()
    assert torch.bfloat16 in kinds
