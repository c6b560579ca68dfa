"""Selection methods against plain, slow ones, and what must hold for all of them."""

from __future__ import annotations

import numpy as np
import pytest

from fewer.core.errors import FewerError
from fewer.selection.methods import METHODS, choose
from fewer.selection.pool import Pool
from tests.selection.pools import full_pool, heaps

pytest.importorskip("sklearn", reason="scikit-learn is not installed: pip install 'fewer[select]'")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("count", [1, 7, 30])
def test_every_method_chooses_new_images_and_repeats_itself(method, count):
    labelled, excluded = [3, 10, 11, 40], [5, 6]
    picks = choose(full_pool(labelled, excluded), method, count, seed=4)
    rows = picks.rows.tolist()
    assert len(set(rows)) == len(rows) == len(picks.why) == len(picks.groups) == len(picks.scores)
    assert not set(rows) & {*labelled, *excluded} and set(rows) <= set(range(80))
    assert len(rows) == count or (method == "saal" and 0 < len(rows) < count)  # its duplicates shrink the set
    assert all(picks.why) and np.isfinite(picks.scores).all()
    again = choose(full_pool(labelled, excluded), method, count, seed=4)
    assert again.rows.tolist() == rows and again.why == picks.why


@pytest.mark.parametrize("method", [m for m in METHODS if m not in ("entropy", "bald", "saal")])
def test_the_whole_pool_can_be_chosen(method):
    pool = full_pool(labelled=[0])
    assert sorted(choose(pool, method, 79).rows.tolist()) == list(range(1, 80))
    with pytest.raises(FewerError, match="80 images cannot be chosen: 79 of the pool's 80 have no label yet"):
        choose(pool, method, 80)


@pytest.mark.parametrize("method", ["random", "foreground-random", "kcenter", "typiclust", "saal-corrected"])
def test_another_seed_chooses_others(method):
    assert {tuple(choose(full_pool(), method, 5, seed=s).rows) for s in range(5)} != {
        tuple(choose(full_pool(), method, 5, seed=0).rows)
    }


@pytest.mark.parametrize("method", ["entropy", "bald"])
def test_uncertainty_in_a_cold_start_is_a_clear_error(method):
    with pytest.raises(FewerError, match="in a cold start there is no model yet: choose the first round with coverage"):
        choose(Pool(heaps()[0]), method, 3)
    with pytest.raises(FewerError, match="did you mean 'kcenter'"):
        choose(Pool(heaps()[0]), "kcentre", 3)
    with pytest.raises(FewerError, match="several predictions per image"):
        choose(Pool(np.ones((2, 3)), predictions=np.full((2, 2), 0.5)), "bald", 1)


@pytest.mark.parametrize("method", ["coverage", "typiclust", "probcover", "kcenter"])
def test_each_heap_gets_a_label(method):
    features, heap = heaps(sizes=(60, 30, 20, 10))
    for seed in range(3):
        assert set(heap[choose(Pool(features), method, 8, seed=seed).rows]) == {0, 1, 2, 3}
    # and one that has a label already waits for those that have none
    known = np.flatnonzero(heap != 2)[:12]
    known = np.concatenate([np.flatnonzero(heap == h)[:3] for h in (0, 1, 3)])
    assert heap[choose(Pool(features, labelled=known), method, 1).rows[0]] == 2


@pytest.mark.parametrize("method", [m for m in METHODS if m not in ("saal",)])
def test_degenerate_pools(method):
    def like(features):
        share = np.full(len(features), 0.5)
        return Pool(features, predictions=np.full((2, len(features), 2), 0.5), foreground=share)

    assert choose(like(np.ones((1, 3), np.float32)), method, 1).rows.tolist() == [0]
    twins = choose(like(np.ones((6, 3), np.float32)), method, 4).rows.tolist()
    assert len(set(twins)) == 4
    assert len(set(choose(like(np.zeros((5, 1), np.float16)), method, 5).rows.tolist())) == 5


def test_large_pools_take_the_other_path(monkeypatch):
    """The mini-batch and sampling paths, on a pool that is small enough for a test."""
    for name in ("cluster._SMALL", "probcover.SAMPLE", "coverage._REFERENCE", "typical._SAMPLE"):
        monkeypatch.setattr(f"fewer.selection.{name}", 60)
    features, heap = heaps(sizes=(120, 60, 60, 60))
    for method in ("coverage", "typiclust", "probcover", "saal-corrected", "kcenter"):
        picks = choose(Pool(features), method, 12, seed=1)
        assert len(set(picks.rows.tolist())) == 12
        assert set(heap[picks.rows]) == {0, 1, 2, 3}, method


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: choose(Pool(np.zeros((4, 3))), "foreground-random", 1), "needs the images or predictions"),
    ],
)
def test_what_does_not_fit_is_told(make, says):
    with pytest.raises(FewerError, match=says):
        make()
