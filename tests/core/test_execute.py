"""Running tasks here, on threads, on processes and on Ray's local cluster."""

import os
import threading
from dataclasses import dataclass, field

import pytest

from fewer.core.errors import FewerError
from fewer.core.execute import run_tasks


@dataclass
class Square:
    """Squares; each worker says who it is."""

    fail_at: int = -1
    error: type[Exception] = ValueError
    made: list[int] = field(default_factory=list)

    def worker(self):
        self.made.append(1)
        who = (os.getpid(), threading.get_ident())

        def work(task):
            if task == self.fail_at:
                raise self.error(f"task {task} failed")
            return task**2, who

        return work


def run_on(backend, job, tasks, workers=2):
    return list(run_tasks(job, tasks, backend=backend, workers=workers))


RAY = pytest.param("ray", marks=pytest.mark.cluster)


@pytest.fixture(autouse=True)
def _ray_or_skip(request):
    if "backend" in request.fixturenames and request.getfixturevalue("backend") == "ray":
        pytest.importorskip("ray", reason="Ray is not installed: pip install 'fewer[cluster]'")


@pytest.mark.parametrize("backend", ["serial", "thread", "process", RAY])
def test_every_task_is_done_once(backend):
    done = run_on(backend, Square(), [3, 1, 2, 5])
    assert sorted((t, r[0]) for t, r in done) == [(1, 1), (2, 4), (3, 9), (5, 25)]
    here = (os.getpid(), threading.get_ident())
    who = {r[1] for _, r in done}
    assert len(who) <= 2
    if backend == "serial":
        assert who == {here} and [t for t, _ in done] == [3, 1, 2, 5]
    elif backend == "thread":
        assert here not in who and {pid for pid, _ in who} == {os.getpid()}
    else:
        assert os.getpid() not in {pid for pid, _ in who}


@pytest.mark.parametrize("backend", ["serial", "thread", "process"])
def test_no_tasks_is_no_work(backend):
    assert run_on(backend, Square(), []) == []


@pytest.mark.parametrize("backend", ["serial", "thread", "process", RAY])
def test_a_users_mistake_comes_back_as_one_sentence(backend):
    with pytest.raises(FewerError, match="task 2 failed"):
        run_on(backend, Square(fail_at=2, error=FewerError), [1, 2, 3])


@pytest.mark.parametrize("backend", ["serial", "thread", "process"])
def test_other_errors_come_back_as_they_are(backend):
    with pytest.raises(ValueError, match="task 1 failed"):
        run_on(backend, Square(fail_at=1), [1])


def test_one_worker_is_made_per_thread_and_not_per_task():
    job = Square()
    run_on("thread", job, list(range(20)))
    assert 1 <= len(job.made) <= 2


def test_leaving_early_starts_nothing_more():
    started: list[int] = []

    class Slow:
        def worker(self):
            return lambda task: started.append(task)

    for _task, _result in run_tasks(Slow(), range(100), backend="thread", workers=2):
        break
    assert len(started) <= 4


def test_bad_backends_and_jobs_that_cannot_travel():
    with pytest.raises(FewerError, match="did you mean 'thread'"):
        run_on("threads", Square(), [1])

    class Local:
        def worker(self):
            return lambda task: task

    with pytest.raises(FewerError, match="use the thread backend"):
        run_on("process", Local(), [1])
