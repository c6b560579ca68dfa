"""Selection methods against plain, slow ones, and what must hold for all of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewer.core.errors import FewerError
from fewer.selection.coverage import select_coverage
from fewer.selection.distance import Unit, Whitened, nearest, squared_distances
from fewer.selection.greedy import ball, gaussian, greedy_cover
from fewer.selection.herding import exchange, herd
from fewer.selection.methods import METHODS, choose
from fewer.selection.peers import select_by_peer
from fewer.selection.pool import Pool, entropy
from fewer.selection.probcover import pure_radius
from fewer.selection.saal import quotas
from fewer.selection.typical import typicality
from fewer.selection.uncertainty import bald_score, probe_predictions

pytest.importorskip("sklearn", reason="scikit-learn is not installed: pip install 'fewer[select]'")


def heaps(sizes=(40, 25, 10, 5), dim=6, seed=0, spread=0.05) -> tuple[np.ndarray, np.ndarray]:
    """Vectors in a few heaps of different size, in a random order, and the heap of each."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(len(sizes), dim))
    heap = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    return (centres[heap] + rng.normal(0, spread, (len(heap), dim))).astype(np.float32), heap


def full_pool(labelled=(), excluded=(), seed=0) -> Pool:
    """A pool that has everything that any method may need."""
    features, _ = heaps(seed=seed)
    rng = np.random.default_rng(seed + 1)
    samples = rng.dirichlet(np.ones(3), size=(4, len(features)))
    return Pool(
        features,
        labelled=np.array(labelled, int),
        excluded=np.array(excluded, int),
        predictions=samples,
        foreground=rng.random(len(features)) * (rng.random(len(features)) < 0.7),
        corrupted=lambda: features + rng.normal(0, 1, features.shape),
    )


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


def brute_kcenter(features: np.ndarray, start: list[int], count: int) -> list[int]:
    chosen = list(start)
    while len(chosen) < len(start) + count:
        distance = ((features[:, None].astype(float) - features[chosen]) ** 2).sum(-1).min(1)
        chosen.append(int(distance.argmax()))
    return chosen[len(start) :]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(5, 300), st.integers(1, 40))
def test_kcenter_is_the_plain_greedy_one(seed, n, dim):
    features = np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)
    start = [seed % n]
    count = min(n - 1, 30)
    picks = choose(Pool(features, labelled=np.array(start)), "kcenter", count, seed)
    assert picks.rows.tolist() == brute_kcenter(features, start, count)


def test_kcenter_is_the_same_when_few_distances_are_kept_up_to_date(monkeypatch):
    features = np.random.default_rng(1).normal(size=(400, 8)).astype(np.float32)
    wanted = choose(Pool(features), "kcenter", 60, seed=2).rows.tolist()
    for kept in (1, 7, 100):
        monkeypatch.setattr("fewer.selection.simple._FAR", kept)
        assert choose(Pool(features), "kcenter", 60, seed=2).rows.tolist() == wanted


def brute_cover(points, weights, kernel, count, covered):
    covered, chosen = covered.copy(), []
    table = kernel(squared_distances(points, points)).astype(float)
    for _ in range(count):
        gain = np.maximum(table - covered, 0) @ weights
        gain[chosen] = -1
        chosen.append(int(gain.argmax()))
        covered = np.maximum(covered, table[chosen[-1]])
    return chosen, float(weights @ covered)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(4, 300), st.booleans())
def test_lazy_coverage_is_as_good_as_plain_greedy(seed, n, soft):
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(n, 3)).astype(np.float32)
    weights = rng.random(n)
    covered = rng.random(n).astype(np.float32) * (rng.random(n) < 0.3)
    kernel = gaussian(0.7) if soft else ball(0.7)
    count = min(n, 12)
    chosen, gains, after = greedy_cover(points, weights, kernel, count, covered=covered)
    wanted, value = brute_cover(points, weights, kernel, count, covered)
    assert float(weights @ after) == pytest.approx(value, rel=1e-4)
    assert (np.diff(gains) <= 1e-4).all() and len(set(chosen.tolist())) == count
    if soft:  # balls tie often, so only their value is the same
        assert chosen.tolist() == wanted


def test_greedy_coverage_is_within_its_bound_of_the_best():
    from itertools import combinations

    points = np.random.default_rng(3).normal(size=(12, 2)).astype(np.float32)
    table = gaussian(0.8)(squared_distances(points, points))
    best = max(table[list(three)].max(0).sum() for three in combinations(range(12), 3))
    _, gains, _ = greedy_cover(points, np.ones(12), gaussian(0.8), 3)
    assert (1 - 1 / np.e) * best <= gains.sum() <= best + 1e-4


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(3, 200))
def test_herding_is_the_plain_one(seed, n):
    rng = np.random.default_rng(seed)
    points, weights = rng.normal(size=(n, 4)).astype(np.float32), rng.random(n) + 0.1
    taken = rng.random(n) < 0.2
    count = min(10, int((~taken).sum()))
    if not count:
        return
    chosen = herd(points, points, weights, 1.3, count, taken, np.random.default_rng(0))
    table = np.exp(-((points[:, None].astype(float) - points) ** 2).sum(-1) / (2 * 1.3**2))
    target = table @ (weights / weights.sum())
    done = np.flatnonzero(taken).tolist()
    for pick in chosen:
        gain = target - table[:, done].sum(1) / (len(done) + 1)
        gain[done] = -np.inf
        assert gain[pick] >= gain.max() - 3e-6
        done.append(int(pick))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(5, 120))
def test_exchanges_bring_the_herd_closer_until_none_helps(seed, n):
    rng = np.random.default_rng(seed)
    points, weights = rng.normal(size=(n, 3)).astype(np.float32), rng.random(n) + 0.1
    taken = rng.random(n) < 0.2
    count = min(6, int((~taken).sum()))
    if not count:
        return
    first = herd(points, points, weights, 0.8, count, taken, rng)
    table = np.exp(-((points[:, None].astype(float) - points) ** 2).sum(-1) / (2 * 0.8**2))
    target = table @ (weights / weights.sum())

    def discrepancy(picks):
        rows = [*picks, *np.flatnonzero(taken)]
        return table[np.ix_(rows, rows)].mean() - 2 * target[rows].mean()

    better = exchange(points, np.arange(n), weights, 0.8, first, taken, sweeps=50)
    assert len(set(better.tolist())) == count and not taken[better].any()
    assert discrepancy(better) <= discrepancy(first) + 1e-6
    for at in range(count):  # no single exchange is better than what is there
        for other in np.flatnonzero(~taken):
            if other not in better:
                assert discrepancy([*better[:at], other, *better[at + 1 :]]) >= discrepancy(better) - 1e-4


def test_herding_represents_the_pool_better_than_chance():
    features, _ = heaps(sizes=(200, 120, 60, 20), spread=0.4)
    table = np.exp(-squared_distances(features, features) / 8)

    def discrepancy(rows):
        return table.mean() - 2 * table[rows].mean() + table[np.ix_(rows, rows)].mean()

    ours = discrepancy(select_coverage(Pool(features), 10, kinds=0, power=0.0).rows)
    chance = [discrepancy(choose(Pool(features), "random", 10, seed=s).rows) for s in range(20)]
    assert ours < min(chance)


def test_uncertainty_pulls_coverage_towards_it():
    features, heap = heaps(sizes=(50, 50), spread=0.3)
    known = np.concatenate([np.flatnonzero(heap == h)[:5] for h in (0, 1)])
    unsure = np.where(heap == 1, 1.0, 0.0)
    plain = choose(Pool(features, labelled=known), "coverage", 12).rows
    pulled = choose(Pool(features, labelled=known, uncertainty=unsure), "coverage", 12).rows
    assert (heap[plain] == 1).sum() <= 7 and (heap[pulled] == 1).sum() >= (heap[plain] == 1).sum() + 2


def test_peers_agree_where_they_are_installed():
    """scikit-activeml's core-set is the same greedy k-centre, on a table of all pairs."""
    pool = pytest.importorskip(
        "skactiveml.pool", reason="scikit-activeml is not installed: pip install 'fewer[select]'"
    )
    features, _ = heaps(spread=0.5)
    labels = np.full(len(features), np.nan)
    labels[7] = 0
    theirs = pool.CoreSet(random_state=0).query(features, labels, batch_size=10)
    ours = choose(Pool(features, labelled=np.array([7])), "kcenter", 10).rows
    assert ours.tolist() == theirs.tolist()
    for name in ("CoreSet", "MaxHerding", "ProbCover", "TypiClust"):
        picks = choose(Pool(features, labelled=np.array([7]), excluded=np.array([8])), f"skactiveml/{name}", 6).rows
        assert len(set(picks.tolist()) - {7, 8}) == 6, name


@pytest.mark.parametrize("method", [m for m in METHODS if m not in ("saal",)])
def test_degenerate_pools(method):
    def like(features):
        share = np.full(len(features), 0.5)
        return Pool(features, predictions=np.full((2, len(features), 2), 0.5), foreground=share)

    assert choose(like(np.ones((1, 3), np.float32)), method, 1).rows.tolist() == [0]
    twins = choose(like(np.ones((6, 3), np.float32)), method, 4).rows.tolist()
    assert len(set(twins)) == 4
    assert len(set(choose(like(np.zeros((5, 1), np.float16)), method, 5).rows.tolist())) == 5


def test_peers_refuse_what_they_cannot_do():
    with pytest.raises(FewerError, match="did you mean 'CoreSet'"):
        select_by_peer(Pool(np.ones((3, 2))), "Coreset", 1)
    with pytest.raises(FewerError, match="did you mean 'skactiveml/TypiClust'"):
        choose(Pool(np.ones((3, 2))), "skactiveml/TypiClst", 1)
    with pytest.raises(FewerError, match="does not fit in memory for 20001"):
        choose(Pool(np.ones((20_001, 1), np.float32)), "skactiveml/CoreSet", 1)


def test_large_pools_take_the_other_path(monkeypatch):
    """The mini-batch and sampling paths, on a pool that is small enough for a test."""
    for name in ("cluster._SMALL", "probcover.SAMPLE", "coverage._REFERENCE", "typical._SAMPLE"):
        monkeypatch.setattr(f"fewer.selection.{name}", 60)
    features, heap = heaps(sizes=(120, 60, 60, 60))
    for method in ("coverage", "typiclust", "probcover", "saal-corrected", "kcenter"):
        picks = choose(Pool(features), method, 12, seed=1)
        assert len(set(picks.rows.tolist())) == 12
        assert set(heap[picks.rows]) == {0, 1, 2, 3}, method


def test_saal_as_published_does_not_look_at_the_images():
    """Its picks are as good as random: 10 heaps of 10, and it misses some; the corrected one finds nearly all."""
    features, heap = heaps(sizes=(10,) * 10, dim=16, spread=0.01)
    found = {
        m: [len(set(heap[choose(Pool(features), m, 10, seed=s).rows])) for s in range(8)]
        for m in METHODS
        if "saal" in m
    }
    assert np.mean(found["saal"]) < 8 < np.mean(found["saal-corrected"])


def test_quotas_and_typicality_and_radius():
    assert quotas(np.array([1, 1, 98]), 10).tolist() == [0, 0, 10]
    for sizes in (np.full(10, 7), np.array([35, 35, 35, 35, 1])):
        for count in (1, 2, 3, 10):
            assert quotas(sizes, count).sum() == count and quotas(sizes, count).min() >= 0
    line = np.array([[0.0], [1.0], [2.0], [10.0]])
    assert typicality(line, 2, np.random.default_rng(0)) == pytest.approx([1 / 1.5, 1 / 1, 1 / 1.5, 1 / 8.5], rel=1e-4)
    points, labels = np.random.default_rng(0).normal(size=(60, 2)), np.arange(60) % 3
    radius = pure_radius(points, labels, 0.8)
    table = np.sqrt(squared_distances(points, points))
    pure = [not ((table[i] < r) & (labels != labels[i])).any() for r in (radius * 0.999,) for i in range(60)]
    assert np.mean(pure) >= 0.8


def test_entropy_and_bald_against_their_definitions():
    samples = np.random.default_rng(0).dirichlet(np.ones(4), size=(5, 7))
    mean = samples.mean(0)
    wanted = np.array([-sum(p * np.log(p) for p in row) for row in mean])
    np.testing.assert_allclose(entropy(samples), wanted)
    inner = np.array([[-sum(p * np.log(p) for p in row) for row in s] for s in samples]).mean(0)
    np.testing.assert_allclose(bald_score(samples), wanted - inner)


def test_the_probe_predicts_and_is_unsure_between_the_heaps():
    features, heap = heaps(sizes=(30, 30), spread=0.1)
    known = np.concatenate([np.flatnonzero(heap == h)[:4] for h in (0, 1)])
    between = (features[heap == 0].mean(0) + features[heap == 1].mean(0)) / 2
    samples = probe_predictions(np.vstack([features, between]).astype(np.float32), known, heap[known])
    assert samples.shape == (8, 61, 2) and (samples.mean(0)[:60].argmax(1) == heap).all()
    assert entropy(samples)[:60].mean() < entropy(samples)[60]
    with pytest.raises(FewerError, match="all labels so far are of one class"):
        probe_predictions(features, known, np.zeros(len(known)))


def test_whitening_and_nearest():
    rng = np.random.default_rng(0)
    features = (rng.normal(size=(500, 5)) * [9, 3, 1, 0.1, 0.01] + 1).astype(np.float32)
    space = Whitened.fit(features, np.arange(500), components=3, power=0.5)
    points = space.of(features)
    np.testing.assert_allclose(np.cov(points.T), np.eye(3), atol=0.02)
    unit = Unit().of(features)
    rotation = Whitened.fit(features, np.arange(500), components=5, power=0.0).of(features)
    np.testing.assert_allclose(squared_distances(rotation, rotation), squared_distances(unit, unit), atol=1e-4)
    labels, squared = nearest(features, features[:4])
    full = ((features[:, None] - features[:4]) ** 2).sum(-1)
    assert (labels == full.argmin(1)).mean() > 0.99
    np.testing.assert_allclose(squared, full.min(1), rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Pool(np.zeros((0, 3))), "shape"),
        (lambda: Pool(np.zeros((4, 3)), labelled=np.array([4])), "no row"),
        (lambda: Pool(np.zeros((4, 3)), uncertainty=np.zeros(3)), "uncertainty are for 3 images, the pool has 4"),
        (lambda: choose(Pool(np.zeros((4, 3))), "foreground-random", 1), "needs the images or predictions"),
    ],
)
def test_what_does_not_fit_is_told(make, says):
    with pytest.raises(FewerError, match=says):
        make()
