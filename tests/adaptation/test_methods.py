"""What all methods share: with every module off nothing is left but a training on the source."""

from __future__ import annotations

import pytest
import torch

from fewer.adaptation.methods import METHODS
from fewer.adaptation.problem import Work
from fewer.adaptation.settings import MODULES_OF
from tests.adaptation.domains import problem, settings


def trained(method: str, *without: str) -> dict[str, torch.Tensor]:
    found = METHODS[method].run(problem(), settings(method=method, without=without), Work())
    assert not len(found.translated) and found.translator is None
    return dict(found.model.state_dict())


@pytest.mark.parametrize("method", sorted(MODULES_OF))
def test_with_all_modules_off_a_method_is_source_only(method: str) -> None:
    plain, off, by_name = trained("source-only"), trained(method, "all"), trained(method, *MODULES_OF[method])
    assert all(torch.equal(value, off[key]) for key, value in plain.items())
    assert all(torch.equal(value, by_name[key]) for key, value in plain.items())
    start = problem().network.state_dict()
    assert not all(torch.equal(value, start[key]) for key, value in plain.items())
