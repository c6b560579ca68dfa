"""Metrics against brute force and against MONAI; misses are counted, never dropped."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest

from fewer.tasks.segment.evaluation import Evaluation
from fewer.tasks.segment.metrics import score_case, score_structure
from tests.tasks.segment.simulated import disc


def _blob(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centre = tuple(float(rng.uniform(0.3, 0.7) * n) for n in shape)
    return disc(shape, centre, float(rng.uniform(2, 0.4 * min(shape)))) | (rng.random(shape) < 0.02)


def _surface(mask: np.ndarray) -> list[tuple[int, ...]]:
    """Voxels with a direct neighbour outside, one by one."""
    found = []
    for index in itertools.product(*map(range, mask.shape)):
        if not mask[index]:
            continue
        for axis, step in itertools.product(range(mask.ndim), (-1, 1)):
            near = list(index)
            near[axis] += step
            if not 0 <= near[axis] < mask.shape[axis] or not mask[tuple(near)]:
                found.append(index)
                break
    return found


@pytest.mark.parametrize("shape", [(14, 11), (7, 8, 9)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_distances_equal_brute_force(shape: tuple[int, ...], seed: int) -> None:
    spacing = (0.7, 2.5, 1.3)[: len(shape)]
    a, b = _blob(seed, shape), _blob(seed + 10, shape)
    score = score_structure(a, b, spacing)
    points = [np.array(_surface(mask)) * spacing for mask in (a, b)]
    gaps = np.linalg.norm(points[0][:, None] - points[1][None], axis=-1)
    ours, theirs = gaps.min(1), gaps.min(0)
    assert score.hd95 == pytest.approx(max(np.percentile(ours, 95), np.percentile(theirs, 95)))
    assert score.assd == pytest.approx(np.concatenate([ours, theirs]).mean())
    both, either = (a & b).sum(), (a | b).sum()
    assert score.dice == pytest.approx(2 * both / (a.sum() + b.sum()))
    assert score.jaccard == pytest.approx(both / either)


def test_distances_equal_monai() -> None:
    pytest.importorskip("monai", reason="needs the [medical] extra")
    import torch
    from monai.metrics.hausdorff_distance import compute_hausdorff_distance
    from monai.metrics.surface_distance import compute_average_surface_distance

    a, b, spacing = _blob(3, (12, 13, 9)), _blob(4, (12, 13, 9)), (0.5, 1.0, 3.0)
    score = score_structure(a, b, spacing)
    x, y = (torch.from_numpy(mask)[None, None].float() for mask in (a, b))
    common = {"include_background": True, "spacing": list(spacing)}
    assert score.hd95 == pytest.approx(float(compute_hausdorff_distance(x, y, percentile=95, **common)), rel=1e-5)
    assert score.assd == pytest.approx(
        float(compute_average_surface_distance(x, y, symmetric=True, **common)), rel=1e-5
    )


def test_misses_and_inventions_are_counted_and_change_no_mean_of_the_found() -> None:
    mask = disc((20, 20), (10, 10), 5)
    shifted, nothing = np.roll(mask, 2, axis=1), np.zeros_like(mask)
    classes = ["background", "lesion"]
    scores = []
    for name, (guess, truth) in {
        "hit": (shifted, mask),
        "miss": (nothing, mask),
        "invented": (mask, nothing),
        "clean": (nothing, nothing),
    }.items():
        scores += score_case(guess.astype(int), truth.astype(int), classes, (2.0, 2.0), case=name)
    total = Evaluation(tuple(scores)).overall
    assert (total.references, total.found, total.missed, total.spurious, total.absent) == (2, 1, 1, 1, 1)
    alone = Evaluation(tuple(scores[:1])).overall
    assert (total.dice, total.hd95, total.assd) == (alone.dice, alone.hd95, alone.assd)
    assert total.dice_all == pytest.approx(alone.dice / 3)  # type: ignore[operator]
    voxels = int(mask.sum())
    assert total.dice_pooled == pytest.approx(2 * (mask & shifted).sum() / (4 * voxels))
    assert total.hd95 == pytest.approx(4.0)  # two pixels of 2 mm


def test_more_misses_never_look_better() -> None:
    """The defect of means that drop NaN: a mean over the found may rise, the counted numbers must not."""
    mask = disc((20, 20), (10, 10), 5)
    poor, nothing = np.roll(mask, 4, axis=0), np.zeros_like(mask)
    both = [score_structure(g, mask, (1.0, 1.0), case=c, structure="x") for c, g in (("a", mask), ("b", poor))]
    one = [both[0], score_structure(nothing, mask, (1.0, 1.0), case="b", structure="x")]
    before, after = Evaluation(tuple(both)).overall, Evaluation(tuple(one)).overall
    assert after.dice is not None and before.dice is not None
    assert after.dice > before.dice  # this is why it never stands alone
    assert after.missed == 1
    assert after.dice_all < before.dice_all  # type: ignore[operator]
    assert after.dice_pooled < before.dice_pooled  # type: ignore[operator]


def test_the_table_shows_misses_beside_means_and_json_has_no_nan() -> None:
    mask = disc((12, 12), (6, 6), 3)
    labels = mask.astype(int) + 0
    labels[0, 0] = 2
    scores = score_case(mask.astype(int), labels, ["background", "lesion", "dot"], (1.0, 1.0), case="a, odd name")
    result = Evaluation(tuple(scores), "pixels")
    head, rows = result.rows()
    assert head[:5] == ["structure", "in reference", "found", "missed", "spurious"]
    assert [row[0] for row in rows] == ["lesion", "dot", "all"]
    assert rows[1][1:7] == ["1", "0", "1", "0", "-", "-"]
    values = json.loads(result.to_json())
    assert values["structures"][1]["hd95"] is None
    assert Evaluation.from_dict(values) == result
    assert '"a, odd name"' in result.to_csv()
    assert result.worst[0].structure == "dot"
