"""How a plan is carried out, layer by layer."""

from fewer.core.option import Option
from fewer.engine.apply import _path


def test_a_thrifty_repair_visits_fewer_options_on_its_way():
    ladder = [Option(), *(Option("unstructured", round(i / 20, 2)) for i in range(1, 19))]
    assert [o.sparsity for o in _path(ladder, ladder[10], 0.0)] == [round(i / 20, 2) for i in range(1, 11)]
    assert [o.sparsity for o in _path(ladder, ladder[10], 0.1)] == [0.1, 0.2, 0.3, 0.4, 0.5]
    assert _path(ladder, ladder[0], 0.1) == [Option()]
