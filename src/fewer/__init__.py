"""fewer: cheap vision models. Fewer weights, fewer bits, fewer joules, fewer labels.

The public verbs are imported lazily, so that ``import fewer`` is quick and does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from fewer.core.version import __version__

# public name -> module that defines it; resolved on first use
_PUBLIC: dict[str, str] = {
    "Budget": "fewer.core.budget",
    "FewerError": "fewer.core.errors",
    "Settings": "fewer.engine.settings",
    "adapt": "fewer.verbs.adapt",
    "apply": "fewer.verbs.apply",
    "bench": "fewer.verbs.bench",
    "compress": "fewer.verbs.compress",
    "doctor": "fewer.verbs.doctor",
    "evaluate": "fewer.verbs.evaluate",
    "export": "fewer.verbs.export",
    "info": "fewer.verbs.info",
    "joint_report": "fewer.verbs.joint",
    "list_names": "fewer.verbs.list_names",
    "load": "fewer.verbs.load",
    "match_table": "fewer.verbs.match",
    "plan": "fewer.verbs.plan",
    "predict": "fewer.verbs.predict",
    "private_compile": "fewer.verbs.private",
    "private_keys": "fewer.verbs.private",
    "private_query": "fewer.verbs.private",
    "private_service": "fewer.verbs.private",
    "profile": "fewer.verbs.profile",
    "recover": "fewer.verbs.recover",
    "report": "fewer.verbs.report",
    "select": "fewer.verbs.select",
    "sense": "fewer.verbs.sense",
    "study_convert": "fewer.verbs.study",
    "study_delete": "fewer.verbs.study",
    "study_export": "fewer.verbs.study",
    "study_new": "fewer.verbs.study",
    "study_serve": "fewer.verbs.study",
    "study_status": "fewer.verbs.study",
    "train": "fewer.verbs.train",
    "tune": "fewer.verbs.tune",
}

__all__ = [
    "Budget",
    "FewerError",
    "Settings",
    "__version__",
    "adapt",
    "apply",
    "bench",
    "compress",
    "doctor",
    "evaluate",
    "export",
    "info",
    "joint_report",
    "list_names",
    "load",
    "match_table",
    "plan",
    "predict",
    "private_compile",
    "private_keys",
    "private_query",
    "private_service",
    "profile",
    "recover",
    "report",
    "select",
    "sense",
    "study_convert",
    "study_delete",
    "study_export",
    "study_new",
    "study_serve",
    "study_status",
    "train",
    "tune",
]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'fewer' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__])


if TYPE_CHECKING:
    from fewer.core.budget import Budget as Budget
    from fewer.core.errors import FewerError as FewerError
    from fewer.engine.settings import Settings as Settings
    from fewer.verbs.adapt import adapt as adapt
    from fewer.verbs.apply import apply as apply
    from fewer.verbs.bench import bench as bench
    from fewer.verbs.compress import compress as compress
    from fewer.verbs.doctor import doctor as doctor
    from fewer.verbs.evaluate import evaluate as evaluate
    from fewer.verbs.export import export as export
    from fewer.verbs.info import info as info
    from fewer.verbs.list_names import list_names as list_names
    from fewer.verbs.load import load as load
    from fewer.verbs.match import match_table as match_table
    from fewer.verbs.plan import plan as plan
    from fewer.verbs.predict import predict as predict
    from fewer.verbs.private import private_compile as private_compile
    from fewer.verbs.private import private_keys as private_keys
    from fewer.verbs.private import private_query as private_query
    from fewer.verbs.private import private_service as private_service
    from fewer.verbs.profile import profile as profile
    from fewer.verbs.recover import recover as recover
    from fewer.verbs.report import report as report
    from fewer.verbs.select import select as select
    from fewer.verbs.sense import sense as sense
    from fewer.verbs.study import study_convert as study_convert
    from fewer.verbs.study import study_delete as study_delete
    from fewer.verbs.study import study_export as study_export
    from fewer.verbs.study import study_new as study_new
    from fewer.verbs.study import study_serve as study_serve
    from fewer.verbs.study import study_status as study_status
    from fewer.verbs.train import train as train
    from fewer.verbs.tune import tune as tune
