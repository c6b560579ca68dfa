"""Ctrl-C waits for the end of a shielded block, also of nested ones, and does nothing in other threads."""

import signal
import threading

import pytest

from fewer.training.shield import shield


@pytest.mark.apart
def test_nested_blocks_end_before_the_interruption() -> None:
    done = []
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), shield():
        with shield():
            signal.raise_signal(signal.SIGINT)
            done.append("inner")
        done.append("outer")
    assert done == ["inner", "outer"] and signal.getsignal(signal.SIGINT) is before


def test_other_threads_just_run() -> None:
    done = []

    def work() -> None:
        with shield():
            done.append(1)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [1]
