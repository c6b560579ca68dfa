"""Curves refuse what cannot be planned from, and come back from the disk as they were."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from core_curves import curve_set, options, smooth_curves

from fewer.core.curve import Curve, CurveSet
from fewer.core.errors import FewerError
from fewer.core.option import Option
from fewer.core.unit import Unit

unit = Unit("blocks.0.qkv", "linear", (4, 4))
two = (Option(), Option("unstructured", 0.5))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((two, {"weights": [4]}, [0, 1]), "cost 'weights' has shape"),
        ((two, {"weights": [4, 2]}, [0, 1, 2]), "distortion has shape"),
        ((two, {"weights": [4, 2]}, [0, float("nan")]), "distortion of option 1 is nan"),
        ((two, {"weights": [4, float("inf")]}, [0, 1]), "cost 'weights' of option 1 is inf"),
        ((two, {"weights": [4, -2]}, [0, 1]), "may not be below 0"),
        ((two, {"weights": [4, 2]}, [0.5, 1]), "dense option has distortion 0.5 instead of 0"),
        ((two[::-1], {"weights": [4, 2]}, [0, 1]), "first option must be dense"),
        (((two[0], two[1], two[1]), {"weights": [4, 2, 2]}, [0, 1, 1]), "'unstructured@0.5' twice"),
        (((), {}, []), "has no options"),
        ((two, {"weights": [4, 2]}, [0, 1], {"lamp": [0, float("nan")]}), "score 'lamp' of option 1 is nan"),
    ],
)
def test_bad_curves_name_the_unit(arguments, says):
    with pytest.raises(FewerError, match=says) as error:
        Curve(unit, *arguments)
    assert "blocks.0.qkv" in str(error.value)


def test_an_empty_unit_may_have_an_infinite_score():
    assert Curve(unit, two, {"weights": [4, 0]}, [0, 1], {"lamp": [0.1, np.inf]}).scores["lamp"][1] == np.inf


def test_arrays_are_copies_and_read_only():
    distortion = np.array([0.0, 1.0])
    curve = Curve(unit, two, {"weights": [4, 2]}, distortion)
    distortion[1] = 9
    assert curve.distortion[1] == 1
    with pytest.raises(ValueError):
        curve.distortion[1] = 5


def test_sets_check_what_belongs_together():
    a = Curve(unit, two, {"weights": [4, 2]}, [0, 1])
    b = Curve(Unit("b", "linear", (2, 2)), two, {"size": [4, 2]}, [0, 1])
    with pytest.raises(FewerError, match="no curves"):
        CurveSet(())
    with pytest.raises(FewerError, match="must be unique"):
        CurveSet((a, a))
    with pytest.raises(FewerError, match=r"unit 'b' measures size, but unit 'blocks\.0\.qkv' measures weights"):
        CurveSet((a, b))
    with pytest.raises(FewerError, match="'wieghts', which no curve measures; did you mean 'weights'"):
        CurveSet((a,), {"wieghts": 1.0})
    with pytest.raises(FewerError, match="must be a finite number"):
        CurveSet((a,), {"weights": float("nan")})


def test_totals_do_not_depend_on_the_order_of_units():
    rng = np.random.default_rng(0)
    costs = (rng.random((300, 2)) * 10.0 ** rng.integers(-8, 8, (300, 1))).tolist()
    forward = curve_set({"size": costs}, [[0.0, 1.0]] * 300)
    backward = curve_set({"size": costs[::-1]}, [[0.0, 1.0]] * 300)
    assert forward.dense("size") == backward.dense("size") == forward.total("size", [0] * 300)


def equal(a: CurveSet, b: CurveSet) -> bool:
    return (
        a.units == b.units
        and a.fixed == b.fixed
        and a.meta == b.meta
        and all(
            x.options == y.options
            and np.array_equal(x.distortion, y.distortion)
            and {k: v.tolist() for k, v in x.cost.items()} == {k: v.tolist() for k, v in y.cost.items()}
            and {k: v.tolist() for k, v in x.scores.items()} == {k: v.tolist() for k, v in y.scores.items()}
            for x, y in zip(a.curves, b.curves, strict=True)
        )
    )


def test_round_trip(tmp_path):
    plain = smooth_curves(7, 11)
    uneven = Curve(
        Unit("gruppe/ä", "conv3d", (4, 1, 3, 3, 3), 4, 2.5, ("tied",)),
        (*options(3), Option("block:16x4", 0.75, "int8")),
        {"weights": [4, 3, 2, 1], "latency": [1, 2, 3, 0.1]},
        [0, 1e-300, 5, 0.1],
        {"lamp": [0, 1, 2, np.inf]},
    )
    curves = CurveSet((*plain.curves[:3], uneven, *plain.curves[3:]), plain.fixed, {"model": "m", "images": [1, None]})
    path = curves.save(tmp_path / "curves.npz")
    back = CurveSet.load(path)
    assert equal(curves, back) and back.hash() == curves.hash()
    assert [p.name for p in tmp_path.iterdir()] == ["curves.npz"]
    before = path.read_bytes()
    back.save(path)
    assert path.read_bytes() == before  # the same curves are the same file


def test_hash_sees_every_number_but_not_the_notes():
    base = curve_set({"weights": [[4.0, 2.0]]}, [[0.0, 1.0]])
    others = [
        curve_set({"weights": [[4.0, 2.0]]}, [[0.0, np.nextafter(1, 2)]]),
        curve_set({"weights": [[4.0, 1.0]]}, [[0.0, 1.0]]),
        curve_set({"weights": [[4.0, 2.0]]}, [[0.0, 1.0]], {"weights": 1.0}),
        curve_set({"size": [[4.0, 2.0]]}, [[0.0, 1.0]]),
    ]
    assert len({base.hash(), *(o.hash() for o in others)}) == 5
    assert CurveSet(base.curves, base.fixed, {"date": "today"}).hash() == base.hash()


class Trap:
    """Unpickling this would run code."""

    def __reduce__(self):
        return (pytest.fail, ("the file was unpickled",))


def test_damaged_and_foreign_files(tmp_path):
    path = tmp_path / "curves.npz"
    with pytest.raises(FewerError, match="does not exist"):
        CurveSet.load(path)
    smooth_curves(3, 5).save(path)
    whole = path.read_bytes()
    for data in (b"", b"not a zip", whole[: len(whole) // 2], whole[:200] + b"\0" * 50 + whole[250:]):
        path.write_bytes(data)
        with pytest.raises(FewerError, match=r"curves\.npz"):
            CurveSet.load(path)
    np.savez(path, header=np.array([Trap()], dtype=object))
    with pytest.raises(FewerError, match="never read"):
        CurveSet.load(path)
    buffer = io.BytesIO()
    np.savez(buffer, header=np.frombuffer(json.dumps({"format": 99}).encode(), dtype=np.uint8))
    path.write_bytes(buffer.getvalue())
    with pytest.raises(FewerError, match="format 99, but this version reads format 1"):
        CurveSet.load(path)


def test_notes_must_be_json(tmp_path):
    curves = CurveSet(smooth_curves(2, 3).curves, meta={"model": object()})
    with pytest.raises(FewerError, match="meta must hold JSON values only"):
        curves.save(tmp_path / "c.npz")
    assert not list(tmp_path.iterdir())
