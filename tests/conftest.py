"""What must hold after every test, so that no test decides how the next one ends."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def _gradients_stay_on() -> Iterator[None]:
    yield
    left_on = torch.is_grad_enabled()
    torch.set_grad_enabled(True)
    assert left_on, "this test left gradients switched off for the tests after it"
