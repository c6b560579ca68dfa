"""Flags that several verbs share. Everything is None unless it was given: precedence goes by kind, not by position."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Any

from cyclopts import Group, Parameter

from fewer.core.errors import FewerError

__all__ = ["SettingFlags", "Shared", "cpu_only", "given"]

CUT = Group("What may go", sort_key=11)
HARM = Group("How harm is measured", sort_key=12)
SPEND = Group("How the budget is spent", sort_key=13)
REPAIR = Group("How the rest is repaired", sort_key=14)
DATA = Group("Images", sort_key=15)
WORK = Group("How the work is done", sort_key=16)
SHARED = Group("Every verb", sort_key=20)


def _p(group: Group) -> Parameter:
    return Parameter(group=group, negative="", show_default=False)


@Parameter(name="*")
@dataclass
class SettingFlags:
    """The settings of a run, as flags. Defaults are those of ``fewer.engine.settings.Settings``."""

    pattern: Annotated[str | None, _p(CUT)] = None
    """unstructured, block:16x4, 2:4, nm:*:16, columns; several with commas; blocks for latency [unstructured]"""
    precisions: Annotated[str | None, _p(CUT)] = None
    """Of fp32, bf16, int8, int4 those the plan may choose from; the first three for latency budgets [fp32]"""
    sparsities: Annotated[str | None, _p(CUT)] = None
    """Shares that each layer may lose, for example 0.3,0.5,0.9 [0.1 to 0.9 in steps of 0.1, and 0.95]"""
    tokens: Annotated[bool | None, _p(CUT)] = None
    """Also offer to merge alike tokens between the blocks of a vision transformer [False]"""
    exclude: Annotated[list[str] | None, _p(CUT)] = None
    """Layers to leave alone, for example head or 'blocks.0.*'; may be repeated [none]"""

    estimator: Annotated[str | None, _p(HARM)] = None
    """taylor (few backward passes), measured (a forward pass per option) or auto (measured where cheap) [auto]"""
    reduction: Annotated[str | None, _p(HARM)] = None
    """Over images: mean, max (worst case) or cvar:0.1 (worst tenth) [mean]"""
    probes: Annotated[int | None, _p(HARM)] = None
    """Random directions per image of the Taylor estimator [4]"""
    data_free: Annotated[str | None, _p(HARM)] = None
    """noise or bn: sense without images [none]"""
    baselines: Annotated[str | None, _p(HARM)] = None
    """Simpler methods, or presets, under the same budget; or none [uniform,erk,lamp,global_magnitude]"""
    additivity: Annotated[int | None, _p(HARM)] = None
    """Random plans on which the prediction is checked [12]"""

    measure: Annotated[str | None, _p(SPEND)] = None
    """latency, energy: what options cost on this machine; a budget in one of them measures it by itself [none]"""
    profile: Annotated[str | None, _p(SPEND)] = None
    """A file of fewer profile: plan for that device [this machine]"""
    deploy_batch: Annotated[int | None, _p(SPEND)] = None
    """Images at once when the model is used [1]"""
    threads: Annotated[int | None, _p(SPEND)] = None
    """Threads when the model is used [those of torch]"""
    allocator: Annotated[str | None, _p(SPEND)] = None
    """auto (what is measured to be best), dp (exact), uniform, uniform_plus, erk, global_magnitude, lamp [auto]"""
    power: Annotated[float | None, _p(SPEND)] = None
    """Weight of a power term beside the harm; 1 makes it as steep as the harm [0.0]"""
    schedule: Annotated[str | None, _p(SPEND)] = None
    """one-shot, or iterative: reach the budget in rounds [one-shot]"""
    rounds: Annotated[int | None, _p(SPEND)] = None
    """Rounds of the iterative schedule [4]"""
    search: Annotated[int | None, _p(SPEND)] = None
    """Evaluations of the local search after planning; 0 is off [0]"""

    compensation: Annotated[str | None, _p(REPAIR)] = None
    """obs (update the weights that stay), bias or none [obs]"""
    score: Annotated[str | None, _p(REPAIR)] = None
    """What goes first inside a layer: obs, magnitude, wanda or taylor [obs]"""
    damping: Annotated[float | None, _p(REPAIR)] = None
    """Ridge of the least-squares repair, relative to the mean curvature [0.03]"""
    smooth: Annotated[float | None, _p(REPAIR)] = None
    """How far ranges of int8 activations are evened out, in plans for time or energy; 0 is off [0.6]"""
    reorder: Annotated[bool | None, _p(REPAIR)] = None
    """Put inner channels in an order in which blocks fall where they hurt less [False]"""
    correction: Annotated[float | None, _p(REPAIR)] = None
    """0 to 1: how much a layer makes up for the cuts before it [0.5]"""

    calibration: Annotated[int | None, _p(DATA)] = None
    """Images for the repair [128]"""
    sensing: Annotated[int | None, _p(DATA)] = None
    """Images for measuring harm, a part of the above [16]"""
    heldout: Annotated[int | None, _p(DATA)] = None
    """Images kept apart for the report [32]"""
    crops: Annotated[int | None, _p(DATA)] = None
    """Random crops per file; 0 takes each centre once [as many as fill the wanted number]"""

    batch: Annotated[int | None, _p(WORK)] = None
    """Images per forward pass in sensing [4]"""
    shards: Annotated[int | None, _p(WORK)] = None
    """Parts of the sensing images that are separate tasks [1]"""
    backend: Annotated[str | None, _p(WORK)] = None
    """serial, thread, process or ray [thread]"""
    workers: Annotated[int | None, _p(WORK)] = None
    """Tasks at once [one per core]"""


@Parameter(name="*")
@dataclass
class Shared:
    """Flags that mean the same in every verb."""

    out: Annotated[str | None, _p(SHARED)] = None
    """Where to write"""
    seed: Annotated[int | None, _p(SHARED)] = None
    """Of every random choice [0]"""
    device: Annotated[str | None, _p(SHARED)] = None
    """cpu; fewer train, eval and predict also take cuda [cpu]"""
    json: Annotated[bool, _p(SHARED)] = False
    """Print JSON on the standard output, nothing else"""
    dry_run: Annotated[bool, _p(SHARED)] = False
    """Say what would be done, with reasons for what would be skipped, and stop"""
    overwrite: Annotated[bool, _p(SHARED)] = False
    """Replace what stands at --out"""
    resume: Annotated[bool, _p(SHARED)] = False
    """Go on where an interrupted run stopped"""
    trust: Annotated[list[str] | None, _p(SHARED)] = None
    """Python file that a run names and that may be run: loading it runs its code; may be repeated [none]"""
    debug: Annotated[bool, _p(SHARED)] = False
    """Show the traceback of an error"""

    def __post_init__(self) -> None:
        if self.trust:
            from fewer.models.trust import trust_files

            trust_files(self.trust)


def cpu_only(shared: Shared) -> None:
    """Refuse a device other than the CPU, in verbs that have no other.

    Raises
    ------
    FewerError
        When another one was asked for.
    """
    if shared.device not in (None, "cpu"):
        raise FewerError(f"device '{shared.device}' cannot be used: this version works on the CPU, --device cpu")


def given(flags: Any, shared: Shared | None = None) -> dict[str, Any]:
    """The settings among the flags that were given, by name.

    Parameters
    ----------
    flags
        A dataclass whose fields are None unless they were given, such as :class:`SettingFlags`; or None.
    shared
        Gives ``seed`` and ``device``.

    Examples
    --------
    >>> given(SettingFlags(probes=8), Shared(seed=3))
    {'probes': 8, 'seed': 3}
    """
    values: dict[str, Any] = {}
    if flags is not None:
        values = {f.name: getattr(flags, f.name) for f in fields(flags)}
    if shared is not None:
        values |= {"seed": shared.seed, "device": shared.device}
    return {name: value for name, value in values.items() if value is not None}
