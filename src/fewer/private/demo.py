"""``fewer demo private``: a small network for real digits, made a circuit, made cheaper, and run encrypted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fewer.core.display import Told
from fewer.core.files import atomic_write_text, explain_os_error
from fewer.core.progress import Progress
from fewer.private.demo_page import demo_page
from fewer.private.demo_run import BUDGET, run_demo

__all__ = ["PrivateDemo", "demo"]


@dataclass(frozen=True, repr=False)
class PrivateDemo(Told):
    """What the demo made.

    Attributes
    ----------
    page
        The page.
    numbers
        Accuracies, times and noise.
    """

    page: Path
    numbers: dict[str, Any]

    def lines(self) -> list[str]:
        """In words."""
        n = self.numbers
        what = "encrypted" if n["encrypted"] else "simulated, nothing was encrypted (pip install tenseal)"
        time = f", {n['ms']:.0f} ms and {n['ms_cheap']:.0f} ms an image" if n["encrypted"] else ""
        return [
            f"digits right: {n['network']:.1%} network, {n['taught']:.1%} with squares in place of ReLU",
            f"{what}, on {n['images']} digits: {n['encrypted_right']:.1%}, and {n['encrypted_right_cheap']:.1%} at "
            f"{BUDGET}{time}",
            f"see {self.page}",
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"page": str(self.page), "numbers": self.numbers}


def demo(
    out: str | Path,
    *,
    seed: int = 0,
    progress: Progress | None = None,
    command: str = "fewer demo private",
    **sizes: Any,
) -> PrivateDemo:
    """Train, compile, shrink, encrypt, and write a page; offline, about a minute on one core.

    Parameters
    ----------
    out
        Folder for the page ``demo.html`` and its numbers.
    seed
        Of everything but the keys.
    sizes
        See :func:`run_demo`.
    """
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise explain_os_error(error, folder, "make the folder") from None
    outcome = run_demo(seed=seed, progress=progress, **sizes)
    page = demo_page(outcome, command)
    atomic_write_text(folder / "demo.json", page.to_json())
    return PrivateDemo(atomic_write_text(folder / "demo.html", page.to_html()), outcome.numbers())
