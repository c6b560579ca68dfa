"""Run many independent tasks: here, on threads, on processes, or on a Ray cluster, with the same task function."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from contextlib import ExitStack
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol, TypeVar

from fewer.core.errors import FewerError, near_match
from fewer.core.memory import keep_freed_memory

T = TypeVar("T")
R = TypeVar("R")

BACKENDS = ("serial", "thread", "process", "ray")


class Job(Protocol):
    """What tasks share. For ``process`` and ``ray`` it is pickled on its way to each worker, never to a file."""

    def worker(self) -> Callable[[Any], Any]:
        """Make the function that does tasks; called once in every worker."""
        ...


def run_tasks(job: Job, tasks: Sequence[T], *, backend: str = "serial", workers: int = 1) -> Iterator[tuple[T, Any]]:
    """Do tasks and yield (task, result) as they finish, in any order.

    Parameters
    ----------
    job
        Shared state and the task function.
    tasks
        Picklable descriptions, handed out in their order.
    backend
        ``serial``, ``thread``, ``process``, or ``ray`` (connects to the cluster that ``ray.init`` finds, or starts a
        local one).
    workers
        How many tasks run at once.

    Raises
    ------
    FewerError
        For an unknown backend, a job that cannot be sent to another process, or when Ray is not installed.

    Examples
    --------
    >>> class Square:
    ...     def worker(self):
    ...         return lambda task: task**2
    >>> sorted(run_tasks(Square(), [1, 2, 3], backend="thread", workers=2))
    [(1, 1), (2, 4), (3, 9)]
    """
    if backend not in BACKENDS:
        raise FewerError(f"unknown backend '{backend}'{near_match(backend, BACKENDS)}")
    if backend == "ray":
        yield from _run_ray(job, tasks, workers)
    elif backend == "serial" or (workers <= 1 and backend == "thread"):
        work = job.worker()
        for task in tasks:
            yield task, work(task)
    elif backend == "thread":
        local = threading.local()

        def in_thread(task: T) -> Any:
            if not hasattr(local, "work"):
                local.work = job.worker()
            return local.work(task)

        with ThreadPoolExecutor(workers, thread_name_prefix="fewer") as pool:
            yield from _drain(pool, in_thread, tasks, workers)
    else:
        # spawn: a forked child of a process that has used OpenMP threads can hang
        with ProcessPoolExecutor(workers, get_context("spawn"), _start_process, (_sendable(job),)) as pool:
            yield from _drain(pool, _in_process, tasks, workers)


def _drain(pool: Executor, function: Callable[[T], R], tasks: Sequence[T], workers: int) -> Iterator[tuple[T, R]]:
    """Keep the pool just busy, so that an interrupt or an error leaves no queue to work off."""
    waiting: dict[Future[R], T] = {}
    todo = iter(tasks)
    try:
        while True:
            while len(waiting) < workers and (task := next(todo, None)) is not None:
                waiting[pool.submit(function, task)] = task
            if not waiting:
                return
            done, _ = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                task = waiting.pop(future)
                yield task, future.result()
    finally:
        for future in waiting:
            future.cancel()


_work: Callable[[Any], Any] | None = None
_kept = ExitStack()  # of a worker, to its end


def _start_process(packed: bytes) -> None:
    import pickle

    global _work
    _kept.enter_context(keep_freed_memory())
    _work = pickle.loads(packed).worker()


def _in_process(task: Any) -> Any:
    assert _work is not None
    return _work(task)


def _sendable(job: Job) -> bytes:
    import pickle

    try:
        return pickle.dumps(job)
    except Exception as error:
        raise FewerError(
            f"the model cannot be sent to another process ({error}): use the thread backend, "
            "or define the model's class in an importable module."
        ) from error


def _run_ray(job: Job, tasks: Sequence[T], workers: int) -> Iterator[tuple[T, Any]]:
    try:
        import ray
        from ray.exceptions import RayActorError, RayTaskError
    except ImportError as error:
        raise FewerError("the ray backend needs Ray: pip install 'fewer[cluster]'") from error
    started = not ray.is_initialized()
    if started:
        # workers on this machine import what this process can, for example a model's module beside the script
        environment = {"env_vars": {"PYTHONPATH": os.pathsep.join(p or str(Path.cwd()) for p in sys.path)}}
        ray.init(
            num_cpus=workers,
            include_dashboard=False,
            log_to_driver=False,
            configure_logging=False,
            runtime_env=environment,
        )
    try:
        shared = ray.put(job)

        @ray.remote(num_cpus=1)
        class Worker:
            def __init__(self, job: Job) -> None:
                _kept.enter_context(keep_freed_memory())
                self.work = job.worker()

            def do(self, task: Any) -> Any:
                return self.work(task)

        free = [
            Worker.remote(shared)  # pyright: ignore[reportAttributeAccessIssue]
            for _ in range(min(workers, len(tasks)))
        ]
        waiting: dict[Any, tuple[Any, T]] = {}
        todo = iter(tasks)
        while True:
            while free and (task := next(todo, None)) is not None:
                worker = free.pop()
                waiting[worker.do.remote(task)] = (worker, task)
            if not waiting:
                return
            done, _ = ray.wait(list(waiting), num_returns=1)
            for ref in done:
                worker, task = waiting.pop(ref)
                free.append(worker)
                try:
                    result = ray.get(ref)
                except RayTaskError as error:
                    cause = getattr(error, "cause", None)
                    raise cause if isinstance(cause, FewerError) else error from None
                except RayActorError as error:
                    last = str(error).strip().splitlines()[-1].strip()
                    raise FewerError(
                        f"a worker of the Ray cluster could not start ({last}): the model's class and fewer itself "
                        "must be importable on every machine of the cluster"
                    ) from error
                yield task, result
    finally:
        if started:
            ray.shutdown()
