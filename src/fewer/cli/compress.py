"""``fewer compress``: model, images and budget in; smaller model and evidence out."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from fewer.cli.flags import ModelFlags, Shared, cpu_only, given
from fewer.cli.setting_flags import SettingFlags
from fewer.core.errors import FewerError

__all__ = ["compress"]


def compress(
    model: str | None = None,
    /,
    *,
    images: Annotated[str | None, Parameter(alias="-i")] = None,
    labelled: str | None = None,
    budget: Annotated[list[str] | None, Parameter(negative="", alias="-b")] = None,
    preset: str | None = None,
    config: str | None = None,
    recover: Annotated[str | None, Parameter(show_default=False)] = None,
    of_model: ModelFlags | None = None,
    settings: SettingFlags | None = None,
    shared: Shared | None = None,
) -> int:
    """Make a model meet a budget with the least change of its output, and write the evidence down.

    Parameters
    ----------
    model
        fewer/dinov2-small, timm/NAME, torchvision/NAME, hf/NAME, FILE.py:FUNCTION (runs that file) or a run of fewer
        train.
        See: fewer list models
    images
        A folder of unlabelled images. A quarter of the files judges the result and steers nothing.
    labelled
        Annotated data, to show quality before and after: images by class for a classifier, or data of a run's task.
        It steers nothing.
    budget
        weights=50%, flops=0.5x, size=8MB, latency=20ms or energy=0.6x; several with commas, all hold at once.
        he=0.5x, rotations=80 or levels=3 make a circuit for encrypted images, as fewer private compile --steps 400.
        cycles=0.5x,he=0.5x make both, for an accelerator and encrypted, and one page of what each step does.
    preset
        Settings with a name. See: fewer list presets
    config
        A TOML file of settings; it may also give model, images, budget and preset.
    recover
        Train what is left for so long, without labels: 90s, 10min or 1.5h. See: fewer recover --help [not at all]
    """
    from fewer.cli.config import resolve
    from fewer.cli.work import run_compress
    from fewer.core.budget import by_target, for_circuit
    from fewer.core.duration import parse_duration
    from fewer.presets import preset_names

    shared = shared or Shared()
    chosen, inputs = resolve(given(settings, shared), preset, config)
    model = model or inputs.get("model")
    images = images or inputs.get("images")
    labelled = labelled or inputs.get("labelled")
    wanted = budget or inputs.get("budget")
    if model is None:
        raise FewerError("which model? give one, for example: fewer compress fewer/mobilenet-v2 --images photos/")
    model = (of_model or ModelFlags()).spec(model)
    if wanted is None:
        raise FewerError("which budget? give one, for example --budget weights=50%")
    if images is None and chosen.data_free is None:
        raise FewerError("which images? give a folder with --images, or sense without any: --data-free noise")
    for_model, encrypted = by_target(wanted)
    if for_model and encrypted:
        from fewer.cli.both import compress_for_both

        if preset not in (None, "joint"):
            raise FewerError(f"budgets of a model and of a circuit are planned with --preset joint, not {preset!r}")
        if preset is None and config is None:
            chosen, _ = resolve(given(settings, shared), "joint")
        against = [k for k, v in {"recover": recover, "data-free": chosen.data_free}.items() if v is not None]
        return compress_for_both(model, images, (for_model, encrypted), chosen, against, shared, labelled)
    if for_circuit(wanted):
        asked = {
            "preset": None if preset in preset_names("private") else preset,
            "config": config,
            "labelled": labelled,
            "recover": recover,
            **given(settings),
        }
        against = [k for k, v in asked.items() if v is not None]
        return _circuit(model, images, wanted, chosen.seed, against, shared, preset)
    if recover is not None:
        parse_duration(recover)  # told before anything is done
        if images is None:
            raise FewerError("recovery needs images to learn from; give a folder with --images")
    return run_compress(model, images, wanted, chosen, shared, shared.out or "run", labelled, recover)


_STEPS = 400
"""Of teaching a circuit what its network says."""


def _circuit(
    model: str,
    images: str | None,
    budget: str | list[str],
    seed: int,
    asked: list[str],
    shared: Shared,
    preset: str | None = None,
) -> int:
    """A circuit within a budget, in place of a model."""
    from fewer.cli.private import compile_circuit
    from fewer.cli.show import say_would

    if asked or images is None:
        wrong = f"--{asked[0].replace('_', '-')} has no meaning" if asked else "--images is missing"
        raise FewerError(f"a budget of a circuit over encrypted numbers was given, for which {wrong}")
    cpu_only(shared)
    text = budget if isinstance(budget, str) else ",".join(budget)
    shared.out = shared.out or "circuit"
    if shared.dry_run:
        return say_would([f"would compile {model} within {text} and write {shared.out}"], shared.json, out=shared.out)
    shared.seed = seed
    return compile_circuit(model, images, text, shared, preset, steps=None if preset else _STEPS)
