"""fewer: cheap vision models. Fewer weights, fewer bits, fewer joules, fewer labels.

The public verbs are imported lazily, so that ``import fewer`` is quick and does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# public name -> module that defines it; resolved on first use
_PUBLIC: dict[str, str] = {
    "Budget": "fewer.core.budget",
    "FewerError": "fewer.core.errors",
    "Settings": "fewer.verbs.settings",
    "apply": "fewer.verbs.folder",
    "compress": "fewer.verbs.compress",
    "doctor": "fewer.verbs.tasks",
    "evaluate": "fewer.verbs.tasks",
    "export": "fewer.verbs.export",
    "load": "fewer.verbs.saving",
    "match_table": "fewer.verbs.folder",
    "plan": "fewer.verbs.planning",
    "predict": "fewer.verbs.tasks",
    "profile": "fewer.verbs.profile",
    "recover": "fewer.verbs.recover",
    "rewrite_report": "fewer.verbs.folder",  # not "report", which is a package
    "select_images": "fewer.verbs.select",  # not "select", which is a package
    "sense": "fewer.verbs.folder",
    "train": "fewer.verbs.tasks",
}

__all__ = [
    "Budget",
    "FewerError",
    "Settings",
    "__version__",
    "apply",
    "compress",
    "doctor",
    "evaluate",
    "export",
    "load",
    "match_table",
    "plan",
    "predict",
    "profile",
    "recover",
    "rewrite_report",
    "select_images",
    "sense",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'fewer' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])


if TYPE_CHECKING:
    from fewer.core.budget import Budget as Budget
    from fewer.core.errors import FewerError as FewerError
    from fewer.verbs.compress import compress as compress
    from fewer.verbs.export import export as export
    from fewer.verbs.folder import apply as apply
    from fewer.verbs.folder import match_table as match_table
    from fewer.verbs.folder import rewrite_report as rewrite_report
    from fewer.verbs.folder import sense as sense
    from fewer.verbs.planning import plan as plan
    from fewer.verbs.profile import profile as profile
    from fewer.verbs.recover import recover as recover
    from fewer.verbs.saving import load as load
    from fewer.verbs.select import select_images as select_images
    from fewer.verbs.settings import Settings as Settings
    from fewer.verbs.tasks import doctor as doctor
    from fewer.verbs.tasks import evaluate as evaluate
    from fewer.verbs.tasks import predict as predict
    from fewer.verbs.tasks import train as train
