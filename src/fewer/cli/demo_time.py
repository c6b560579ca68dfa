"""The second part of ``fewer demo``: the same network within a budget in time, beside the runtimes of others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewer.core.errors import UnmetError
from fewer.core.progress import Progress, Under

if TYPE_CHECKING:
    from fewer.reports import RunReport
    from fewer.reports.compression.parts import Runtimes

__all__ = ["BUDGET", "PART", "Timed", "fast_folder", "is_over", "time_part"]

BUDGET = "latency=0.45x"
"""Of the fastest dense runtime in fp32; where the machine has no int8 instructions, the least that can be reached."""
PART = "fast"
"""What the stages of this part begin with."""
WORTH = 0.9
"""A share of the dense time above which there is nothing to show."""
PEERS = ("torch-fp32", "onnxruntime-fp32", "onnxruntime-int8", "openvino-fp32", "openvino-int8")
SECONDS = 6.0
"""How long the turns of all runtimes take together."""
_DONE = "bench.json"


@dataclass(frozen=True)
class Timed:
    """What the part found.

    Attributes
    ----------
    report
        Of the compressed network.
    runtimes
        It and the dense one in every runtime, the quickest first.
    folder
        Where both are.
    """

    report: RunReport
    runtimes: Runtimes
    folder: Path

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "folder": str(self.folder),
            "report": self.report.model_dump(),
            "runtimes": self.runtimes.model_dump(),
        }


def fast_folder(out: str | Path) -> Path:
    """Where the part is kept: beside the folder of the first part.

    Examples
    --------
    >>> fast_folder("demo-run/").as_posix()
    'demo-run-fast'
    """
    out = Path(out)
    return out.with_name(f"{out.name}-{PART}")


def is_over(out: str | Path) -> bool:
    """Whether the part that belongs to a first part ran to its end."""
    return (fast_folder(out) / _DONE).exists()


def time_part(model: str, photos: Sequence[Path], out: str | Path, seed: int | None, progress: Progress) -> Timed:
    """Compress for time, and time the result in turns with other runtimes.

    Parameters
    ----------
    model, photos
        As in the first part.
    out
        Folder of the first part.
    seed
        Of every random choice.
    progress
        Is told about the stages, under names of their own.
    """
    import fewer
    from fewer.core.files import atomic_write_text
    from fewer.engine.settings import Settings
    from fewer.verbs.report import add_to_report, runtimes_of

    part, folder = Under(progress, PART), fast_folder(out)
    over = is_over(out)
    settings = Settings.from_preset("demo-fast", **({} if seed is None else {"seed": seed}))
    options = {"out": folder, "settings": settings, "overwrite": over, "resume": not over, "progress": part}
    try:
        run = fewer.compress(model, photos, BUDGET, **options)
    except UnmetError as error:
        if error.least is None or error.least > WORTH:
            raise
        run = fewer.compress(model, photos, f"latency={error.least + 0.02:.2f}x", **options)
    found = fewer.bench(folder, vs=PEERS, threads=[1], time=SECONDS, progress=part)
    add_to_report(folder, found)
    atomic_write_text(folder / _DONE, found.to_json())
    return Timed(run.report, runtimes_of(found), folder)
