"""``fewer sense``: measure once what every cut costs and distorts; any budget is then planned from it."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from fewer.cli.flags import ModelFlags, Shared, given
from fewer.cli.setting_flags import SettingFlags
from fewer.core.errors import FewerError

if TYPE_CHECKING:
    from fewer.core.curve import CurveSet

__all__ = ["sense"]


def sense(
    model: str | None = None,
    /,
    *,
    images: Annotated[str | None, Parameter(alias="-i")] = None,
    preset: str | None = None,
    config: str | None = None,
    of_model: ModelFlags | None = None,
    settings: SettingFlags | None = None,
    shared: Shared | None = None,
) -> int:
    """Measure what every option of every layer costs and how far it distorts, and keep the curves in a run folder.

    Parameters
    ----------
    model
        fewer/dinov2-small, timm/NAME, torchvision/NAME, hf/NAME or FILE.py:FUNCTION, which runs the code of that file.
        See: fewer list models
    images
        A folder of unlabelled images.
    preset
        Settings with a name. See: fewer list presets
    config
        A TOML file of settings; it may also give model, images and preset.
    """
    import fewer
    from fewer.cli.config import resolve
    from fewer.cli.progress import terminal_progress
    from fewer.cli.show import as_json, say
    from fewer.cli.work import dry_run

    shared = shared or Shared()
    chosen, inputs = resolve(given(settings, shared), preset, config)
    model = model or inputs.get("model")
    images = images or inputs.get("images")
    if model is None:
        raise FewerError("which model? give one, for example: fewer sense fewer/mobilenet-v2 --images photos/")
    if images is None and chosen.data_free is None:
        raise FewerError("which images? give a folder with --images, or sense without any: --data-free noise")
    model = (of_model or ModelFlags()).spec(model)
    out = shared.out or "run"
    if shared.dry_run:
        return dry_run(model, images, chosen, shared, ["sense only"], out)
    run = fewer.sense(
        model,
        images,
        out=out,
        settings=chosen,
        overwrite=shared.overwrite,
        resume=shared.resume,
        progress=terminal_progress(),
    )
    curves = run.curves
    if shared.json:
        as_json({"folder": out, **_numbers(curves)})
        return 0
    options = sum(len(curve.options) for curve in curves.curves)
    say(f"sensed {options} options of {len(curves.curves)} layers; the curves are in {out}")
    say(f"next: fewer plan {shlex.quote(out)} --budget weights=50%")
    return 0


def _numbers(curves: CurveSet) -> dict[str, Any]:
    """Cost and distortion of every option of every layer, as plain values."""
    return {
        "hash": curves.hash(),
        "dense": {metric: curves.dense(metric) for metric in curves.metrics},
        "curves": [
            {
                "unit": curve.unit.name,
                "options": [str(option) for option in curve.options],
                "cost": {metric: values.tolist() for metric, values in curve.cost.items()},
                "distortion": curve.distortion.tolist(),
            }
            for curve in curves.curves
        ],
    }
