"""A function is known again in another process, and told apart once it does something else."""

import functools
import subprocess
import sys

import pytest

from fewer.core.fingerprint import function_fingerprint


def _scaled(factor):
    return lambda model, batch: factor * model(batch)


class _Forward:
    """Calls a model."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def __call__(self, model, batch):
        return self.factor * model(batch)


@pytest.mark.parametrize(
    "make", [_scaled, _Forward, lambda n: functools.partial(max, n), lambda n: _Forward(n).__call__]
)
def test_it_follows_what_a_function_is_bound_to(make) -> None:
    assert function_fingerprint(make(2)) == function_fingerprint(make(2))
    assert function_fingerprint(make(2)) != function_fingerprint(make(3))


def test_other_code_is_another_function() -> None:
    first, second, third = (lambda m, b: m(b)), (lambda m, b: m(b)[0]), (lambda m, b: m.features(b))
    assert len({function_fingerprint(f) for f in (first, second, third, None, _Forward)}) == 5


def test_a_function_that_holds_itself() -> None:
    def again(n):
        return again(n - 1) if n else 0

    assert function_fingerprint(again) == function_fingerprint(again)


def test_another_process_finds_the_same() -> None:
    code = "from fewer.core.fingerprint import function_fingerprint as f; print(f(lambda m, b: {'a', 'b', m}))"
    found = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout for _ in "ab"
    }
    assert len(found) == 1
