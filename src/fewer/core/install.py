"""Commands that install what is missing, written so that they work where they are read."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

__all__ = ["clone", "working"]

_PIP = re.compile(r"(?<!-m )\bpip install ")
_EXTRA = re.compile(r"""(?<=pip install )(['"]?)fewer\[([\w,-]+)\]\1""")


def clone() -> Path | None:
    """The checkout that this code is run from, or None where it was installed from a package."""
    root = Path(__file__).resolve().parents[3]
    return root if (root / "pyproject.toml").is_file() and (root / "src" / "fewer").is_dir() else None


def working(text: str, root: Path | None = None, python: str | None = None) -> str:
    """The same text, with commands of pip for the Python that runs, and for a checkout where this is one.

    A plain ``pip`` may belong to another Python, and the name ``fewer`` on an index may be another project.

    Parameters
    ----------
    text
        Of a message.
    root
        The checkout; by default :func:`clone`.
    python
        By default that of this process.

    Examples
    --------
    >>> working("it needs onnx: pip install 'fewer[deploy]'", Path("/src/fewer"), "/venv/bin/python")
    "it needs onnx: /venv/bin/python -m pip install -e '/src/fewer[deploy]'"
    >>> working("run: pip install timm", python="/venv/bin/python")
    'run: /venv/bin/python -m pip install timm'
    """
    if "pip install " not in text:
        return text
    root = root or clone()
    if root is not None:
        place = _near(root)
        text = _EXTRA.sub(lambda found: "-e " + shlex.quote(f"{place}[{found[2]}]"), text)
    return _PIP.sub(f"{shlex.quote(_near(python or sys.executable))} -m pip install ", text)


def _near(path: str | Path) -> str:
    """A path below the working folder as seen from there: it is shorter, and what a person would type."""
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(path)
