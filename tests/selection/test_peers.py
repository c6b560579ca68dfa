"""Methods of scikit-activeml beside ours."""

from __future__ import annotations

import numpy as np
import pytest

from fewer.core.errors import FewerError
from fewer.selection.methods import choose
from fewer.selection.peers import select_by_peer
from fewer.selection.pool import Pool
from tests.selection.pools import heaps

pytest.importorskip("sklearn", reason="scikit-learn is not installed: pip install 'fewer[select]'")


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


def test_peers_refuse_what_they_cannot_do():
    with pytest.raises(FewerError, match="did you mean 'CoreSet'"):
        select_by_peer(Pool(np.ones((3, 2))), "Coreset", 1)
    with pytest.raises(FewerError, match="did you mean 'skactiveml/TypiClust'"):
        choose(Pool(np.ones((3, 2))), "skactiveml/TypiClst", 1)
    with pytest.raises(FewerError, match="does not fit in memory for 20001"):
        choose(Pool(np.ones((20_001, 1), np.float32)), "skactiveml/CoreSet", 1)
