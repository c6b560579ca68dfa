"""Tasks: what a model is for. Each brings its data reader, its metrics and its training; methods never import one.

A method that needs a task's images or quality is given them as arguments; only verbs and the engine look a task up.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import stat
from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from fewer.core.errors import FewerError, near_match
from fewer.core.files import explain_os_error
from fewer.core.reading import read_json
from fewer.tasks.task import Quality, Result, Task

__all__ = [
    "TASKS",
    "Quality",
    "Result",
    "Task",
    "open_task",
    "reads_inputs",
    "register_task",
    "task_for",
    "task_notes",
    "task_of_run",
    "task_that_warms_up",
    "usable_tasks",
]

GROUP = "fewer.tasks"
"""Entry point group of third-party tasks: the name of a task, and ``package.module:Class``."""

BUILT_IN = {
    "classify": "fewer.tasks.classify.task:Classify",
    "detect3d": "fewer.tasks.detect3d.task:Detect3D",
    "gait": "fewer.tasks.gait.task:Gait",
    "quality": "fewer.tasks.quality.task:Quality",
    "segment": "fewer.tasks.segment.task:Segment",
}
"""Name of each task that comes with the library, and the class that it is."""


class _Tasks(Mapping[str, Any]):
    """Where each task is: built in, registered in this process, or of an installed package, which is read lazily."""

    def __init__(self) -> None:
        self._known: dict[str, str | EntryPoint | Task] = dict(BUILT_IN)
        self._read = False

    def _all(self) -> dict[str, str | EntryPoint | Task]:
        if not self._read:
            self._read = True
            for point in entry_points(group=GROUP):
                self._known.setdefault(point.name, point)
        return self._known

    def __getitem__(self, name: str) -> Any:
        return self._known[name] if name in self._known else self._all()[name]

    def __contains__(self, name: object) -> bool:
        # entry points are read only for a name that is not known: reading them takes some milliseconds
        return isinstance(name, str) and (name in self._known or name in self._all())

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._all()))

    def __len__(self) -> int:
        return len(self._all())

    def put(self, name: str, what: Task) -> None:
        self._known[name] = what


TASKS = _Tasks()
"""Every task by name; see :func:`open_task`."""


def register_task(task: Task | type[Task]) -> Task:
    """Make a task known in this process, as an entry point does for every process.

    Raises
    ------
    FewerError
        When it is no task, or another task has its name.

    Examples
    --------
    >>> class Sorting(Task):
    ...     name, note = "sort-doc", "puts photos in order"
    >>> register_task(Sorting).name, open_task("sort-doc").note
    ('sort-doc', 'puts photos in order')
    """
    made = _checked(task, f"{task!r}")
    if made.name in BUILT_IN:
        raise FewerError(f"the task {made.name!r} comes with fewer; give yours another name")
    TASKS.put(made.name, made)
    return made


def open_task(name: str) -> Task:
    """The task of a name.

    Raises
    ------
    FewerError
        With the nearest name, or with what is wrong with the package that brings the task.

    Examples
    --------
    >>> open_task("segmnt")
    Traceback (most recent call last):
    fewer.core.errors.FewerError: unknown task 'segmnt'; did you mean 'segment'?
    """
    if not isinstance(name, str) or name not in TASKS:
        raise FewerError(f"unknown task {name!r}{near_match(str(name), TASKS)}")
    where = TASKS[name]
    if isinstance(where, Task):
        return where
    if isinstance(where, str):
        module, _, attribute = where.partition(":")
        return getattr(importlib.import_module(module), attribute)()
    told = f"the task {name!r} of the entry point {where.value!r}"
    try:
        found = where.load()
    except Exception as error:  # the code is somebody else's
        raise FewerError(f"{told} cannot be imported ({type(error).__name__}: {error}); update or remove it") from error
    made = _checked(found, told)
    TASKS.put(name, made)
    return made


def _checked(found: Any, told: str) -> Task:
    try:
        made = found() if isinstance(found, type) else found
    except Exception as error:
        raise FewerError(f"{told} cannot be made ({type(error).__name__}: {error})") from error
    if not isinstance(made, Task) or not getattr(made, "name", ""):
        raise FewerError(f"{told} is no subclass of fewer.tasks.Task with a name")
    return made


def reads_inputs(task: str | None, inputs: Any) -> bool:
    """Whether the inputs of a model must be read by the task that it was trained for, as no one else can.

    Examples
    --------
    >>> reads_inputs("segment", "lesions/"), reads_inputs(None, "photos/")
    (True, False)
    """
    return task in TASKS and isinstance(inputs, (str, Path)) and open_task(str(task)).reads(inputs)


def task_notes() -> dict[str, str]:
    """What each task is for, by name; of a plug-in that cannot be used, why.

    Examples
    --------
    >>> "segment" in task_notes()
    True
    """
    notes = {}
    for name in TASKS:
        try:
            notes[name] = open_task(name).note
        except FewerError as error:
            notes[name] = f"cannot be used: {error}"
    return notes


def task_of_run(run: str | Path) -> str | None:
    """Name of the task that a run folder says it is of; None for anything else.

    Raises
    ------
    FewerError
        When there is a run that may not be read, or whose recipe is damaged.

    Examples
    --------
    >>> task_of_run("no-such-run") is None
    True
    """
    path = Path(run) / "recipe.json"
    try:
        path.lstat()
    except PermissionError as error:
        raise explain_os_error(error, Path(run), "read") from error
    except (OSError, ValueError):  # no such file, or a word that can be none
        return None
    recipe = read_json(path)
    meta = recipe.get("meta") if isinstance(recipe, dict) else None
    name = meta.get("task") if isinstance(meta, dict) else None
    return name if isinstance(name, str) and name in TASKS else None


def task_for(name: str | None, *, run: str | Path | None = None, data: Any = None) -> Task:
    """The task that is meant: the one that was named, that of a run folder, or the one that knows the data.

    Raises
    ------
    FewerError
        When none or several could be meant.

    Examples
    --------
    >>> task_for(None, data="no-such-folder")
    Traceback (most recent call last):
    fewer.core.errors.FewerError: no-such-folder does not exist
    """
    if name is not None:
        return open_task(name)
    if run is not None and (found := task_of_run(run)) is not None:
        return open_task(found)
    if not isinstance(data, (str, Path)):
        data = getattr(data, "root", None)
    if data is None:
        raise FewerError(f"which task? give --task: {', '.join(TASKS)}")
    _check_readable(Path(data))
    able = [task for task in usable_tasks() if task.recognises(data)]
    if len(able) > 1:
        raise FewerError(f"{data} could be data of the tasks {' and '.join(t.name for t in able)}; give --task")
    if not able:
        needs = "; ".join(f"{task.name} needs {task.data}" for task in usable_tasks())
        if run is not None and (Path(run).exists() or str(run) != str(data)):
            why = "holds no recipe.json" if Path(run).is_dir() else "is no run folder"
            raise FewerError(f"{run} {why} that says its task, and no task knows the data in {data}; give --task")
        raise FewerError(f"no task knows the data in {data} ({needs}); give --task if it is data of one")
    return able[0]


def _check_readable(data: Path) -> None:
    try:
        if stat.S_ISDIR(data.stat().st_mode):
            os.scandir(data).close()
            (data / "x").exists()  # a folder that may be listed, but not entered
    except (FileNotFoundError, NotADirectoryError):
        raise FewerError(f"{data} does not exist") from None
    except OSError as error:
        raise explain_os_error(error, data, "read") from error
    except ValueError as error:  # a null character
        raise FewerError(f"{str(data)!r} is no name of a file: {error}") from None


def usable_tasks() -> list[Task]:
    """Every task that can be opened: a broken plug-in does not stop the others.

    Examples
    --------
    >>> {"classify", "segment"} <= {task.name for task in usable_tasks()}
    True
    """
    found = []
    for name in TASKS:
        with contextlib.suppress(FewerError):
            found.append(open_task(name))
    return found


def task_that_warms_up(pool: str | Path) -> Task:
    """The task whose network learns features from the unlabelled images of a pool.

    One that knows the pool comes first, then the first in the table that can do it at all.

    Raises
    ------
    FewerError
        When no task of this installation can.

    Examples
    --------
    >>> task_that_warms_up("photos").warms_up
    True
    """
    able = [task for task in usable_tasks() if task.warms_up]
    if not able:
        raise FewerError("no task here learns features without labels; leave --features warm-up out")
    return next((task for task in able if task.recognises(pool)), able[0])
