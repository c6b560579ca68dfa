"""Models that a user's own Python file makes: ``path.py:function``."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import sys
import traceback
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from fewer.core.errors import FewerError
from fewer.core.files import real_path
from fewer.core.reading import read_bytes


def split(spec: str) -> tuple[Path, str]:
    """Split ``path.py:function``.

    Raises
    ------
    FewerError
        When the function is missing or the file does not exist.

    Examples
    --------
    >>> split("no_such_file.py")
    Traceback (most recent call last):
    ...
    fewer.core.errors.FewerError: 'no_such_file.py' names a file but no function; write no_such_file.py:FUNCTION
    """
    file, colon, function = spec.rpartition(":")
    if not colon or not file.endswith(".py"):
        raise FewerError(f"{spec!r} names a file but no function; write {spec.rstrip(':')}:FUNCTION")
    return Path(file), function


def call(path: Path, function: str, expected_sha256: str | None = None) -> tuple[Any, str]:
    """Run a user's file and call one of its functions without arguments.

    Parameters
    ----------
    path : Path
        The Python file.
    function : str
        Name of a function in it that takes no arguments.
    expected_sha256 : str, optional
        Refuse a file whose content has changed.

    Returns
    -------
    made : object
        What the function returned.
    sha256 : str
        Of the file's content.

    Raises
    ------
    FewerError
        When the file is missing, changed or fails (the message has the file, the line and the error),
        or has no such function (with the nearest name).
    """
    if not path.is_file():
        raise FewerError(f"the model file {path} does not exist; give its path, or pass architecture= a factory")
    sha256 = hashlib.sha256(read_bytes(path)).hexdigest()
    if expected_sha256 is not None and sha256 != expected_sha256:
        raise FewerError(
            f"the model file {path} has changed since the model was saved; restore it, or pass architecture= a factory"
        )
    # place and content are in the name, so that two versions of a file, or two files of one name, share no module
    place = hashlib.sha256(str(real_path(path)).encode()).hexdigest()
    name = f"_fewer_user_{path.stem}_{place[:8]}_{sha256[:12]}"
    module = sys.modules.get(name)
    if module is None:
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise FewerError(f"{path} is not a Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        # a user's file may import its neighbours, as it can when it is run as a script
        folder = str(real_path(path).parent)
        sys.path.insert(0, folder)
        try:
            spec.loader.exec_module(module)
        except (Exception, SystemExit) as error:
            del sys.modules[name]
            raise _explain(error, path, "cannot be loaded") from error
        finally:
            if folder in sys.path:
                sys.path.remove(folder)
    factory = getattr(module, function, None)
    if not callable(factory):
        names = [key for key, value in vars(module).items() if inspect.isfunction(value) and not key.startswith("_")]
        near = get_close_matches(function, names, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"its functions: {', '.join(names) or 'none'}"
        raise FewerError(f"{path} has no function {function!r}; {hint}")
    try:
        return factory(), sha256
    except FewerError:
        raise
    except (Exception, SystemExit) as error:
        raise _explain(error, path, f"fails in {function}()") from error


def _explain(error: BaseException, path: Path, what: str) -> FewerError:
    line = error.lineno if isinstance(error, SyntaxError) else None
    for frame in traceback.extract_tb(error.__traceback__):
        if Path(frame.filename) == path or Path(frame.filename) == real_path(path):
            line = frame.lineno  # the innermost line of the user's own file
    where = f"{path}, line {line}" if line else str(path)
    said = "it ends the program with sys.exit" if isinstance(error, SystemExit) else str(error)
    return FewerError(f"{where}: {what}: {type(error).__name__}: {said}")
