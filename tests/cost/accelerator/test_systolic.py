"""The systolic array against the counts of the SCALE-Sim v3 simulator, and against bounds that hold for any array."""

from __future__ import annotations

import pytest

from fewer.core.errors import FewerError
from fewer.cost.accelerator.systolic import DATAFLOWS, Array, Product, cycles, energy, utilisation

# what the simulator printed for a 32 x 32 array, plus one: (m, n, k) -> weight, output, input stationary
SIMULATED = {(1024, 16, 144): (5590, 6592, 17600), (256, 32, 288): (3150, 2800, 9072)}


@pytest.mark.parametrize("sizes", SIMULATED)
def test_cycles_are_those_of_the_simulator(sizes):
    found = tuple(cycles(Product(*sizes), Array(dataflow=d)) for d in ("weight", "output", "input"))
    assert found == SIMULATED[sizes]
    assert [round(100 * utilisation(Product(*s), Array()), 2) for s in SIMULATED] == [41.22, 73.14]


@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_more_sparsity_is_never_slower_nor_dearer(dataflow):
    for packs in (True, False):
        array = Array(dataflow=dataflow, packs=packs)
        products = [Product(197, 768, 3072, d) for d in (1.0, 0.7, 0.5, 0.2, 0.0)]
        times, joules = [cycles(p, array) for p in products], [energy(p, array) for p in products]
        assert times == sorted(times, reverse=True) and joules == sorted(joules, reverse=True)
        assert times[-1] == 0
        # never better than the share that is left
        assert all(t >= 0.99 * p.density * times[0] for t, p in zip(times, products, strict=True))


def test_blocks_smaller_than_a_fold_are_lost_unless_they_are_packed():
    small = Product(197, 768, 768, 0.5, (16, 16))
    dense = cycles(Product(197, 768, 768), Array())
    assert cycles(small, Array(packs=False)) > 0.9 * dense  # four blocks in a fold: one in sixteen folds is empty
    assert cycles(small, Array()) == pytest.approx(0.5 * dense, rel=0.01)
    assert cycles(Product(197, 768, 768, 0.5, (32, 32)), Array(packs=False)) == pytest.approx(0.5 * dense, rel=0.01)


def test_main_memory_bounds_the_time():
    product = Product(1, 1024, 1024)
    slow = Array(bytes_per_cycle=1.0)
    assert cycles(product, slow) == 1024 * 1024 + 2 * 1024
    assert cycles(product, slow, precision="fp32") == 4 * cycles(product, slow)


def test_bad_hardware():
    with pytest.raises(FewerError, match="did you mean 'weight'"):
        Array(dataflow="weigth")
    with pytest.raises(FewerError, match="is none"):
        Array(rows=0)
