"""The process in which one competitor is timed: ``python -m fewer.timing.worker``, spoken to over its pipes.

First comes one JSON line with the job, then the payload's bytes; after that each line in is one request and each line
out its answer. Whatever the libraries print goes to the error stream, which the bench keeps as the reason of a failure.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import replace
from typing import Any, BinaryIO

import numpy as np

from fewer.models.trust import trust_files
from fewer.timing import sample as stopwatch

__all__ = ["Session", "limit_cpus", "main"]


class Session:
    """One loaded competitor and the requests it understands; the bench uses it in its own process, too."""

    def __init__(self, job: Any) -> None:
        from fewer.timing import runtimes

        start = time.perf_counter()
        self.loaded = runtimes.load(job)
        self.job = replace(job, payload=None)  # the pickled copy must not count as the model's memory
        result = self.loaded.call()
        self.outputs = self.loaded.arrays(result)
        self.load_s = time.perf_counter() - start
        self.load_memory = stopwatch.peak_memory()

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Answer one request; ``op`` says which."""
        return getattr(self, f"_{request['op']}")(request)

    def _about(self, request: dict[str, Any]) -> dict[str, Any]:
        np.savez(request["outputs"], *self.outputs)
        return {
            "load_s": self.load_s,
            "load_memory": self.load_memory,
            "note": self.loaded.note,
            "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        }

    def _judge(self, request: dict[str, Any]) -> dict[str, Any]:
        with np.load(request["inputs"], allow_pickle=False) as file:
            given = [file[f"arr_{index}"] for index in range(len(file.files))]
        found = []
        for array in given:
            found += [out.ravel() for out in self.loaded.arrays(self.loaded.feed([array]))]
        np.save(request["outputs"], np.concatenate(found) if found else np.zeros(0, np.float32))
        return {}

    def _warm(self, request: dict[str, Any]) -> dict[str, Any]:
        estimate = stopwatch.warm_up(self.loaded.call)
        stopwatch.reset_peak_memory()
        return {"estimate_ms": estimate}

    def _time(self, request: dict[str, Any]) -> dict[str, Any]:
        wall, cpu = stopwatch.sample(self.loaded.call, request["repeats"], request["lead"])
        return {"wall_ms": wall, "cpu_ms": cpu}

    def _memory(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"memory": stopwatch.peak_memory()}

    def _layers(self, request: dict[str, Any]) -> dict[str, Any]:
        from fewer.timing import hooks, runtimes

        return hooks.measure(self.loaded, runtimes.inputs_of(self.job), request["rounds"])

    def _peaks(self, request: dict[str, Any]) -> dict[str, Any]:
        from fewer.timing import roofline

        return roofline.measure(quick=request.get("quick", False))


def limit_cpus(threads: int) -> int | None:
    """Pin this process to ``threads`` CPUs, one per physical core as far as they go; how many, or None if it cannot."""
    if not hasattr(os, "sched_setaffinity"):
        return None
    allowed = sorted(os.sched_getaffinity(0))
    first_of_core: dict[str, int] = {}
    for cpu in allowed:
        try:
            with open(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list") as file:  # noqa: PTH123
                core = file.read().strip()
        except OSError:
            core = str(cpu)
        first_of_core.setdefault(core, cpu)
    cores = sorted(first_of_core.values())
    order = cores + [cpu for cpu in allowed if cpu not in cores]
    os.sched_setaffinity(0, set(order[:threads]))
    return min(threads, len(order))


def main() -> int:
    """Serve until the requests end."""
    requests: BinaryIO = sys.stdin.buffer
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # from here on a library's print cannot be taken for an answer

    def answer(**values: Any) -> None:
        answers.write(json.dumps(values) + "\n")
        answers.flush()

    header = json.loads(requests.readline())
    sys.path[:] = header.pop("path_entries")
    trust_files(header.pop("trusted"))
    payload = requests.read(header.pop("payload_bytes"))
    try:
        if "prepare" in header:
            from fewer.timing import int8

            answer(ok=True, **int8.prepare(header["prepare"], header["arguments"]))
            return 0
        if header.pop("pin"):
            limit_cpus(header["threads"])
        from fewer.timing import runtimes

        job = runtimes.Job(**header, payload=payload or None)
        del payload
        session = Session(job)
        del job
        answer(ok=True)
    except Exception as error:  # the reason goes back to the bench, which prints it as the row's
        answer(ok=False, error=f"{type(error).__name__}: {error}")
        return 1
    for line in requests:
        try:
            answer(ok=True, **session.ask(json.loads(line)))
        except Exception as error:
            answer(ok=False, error=f"{type(error).__name__}: {error}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
