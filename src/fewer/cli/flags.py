"""Flags that several verbs share. Everything is None unless it was given: precedence goes by kind, not by position."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, make_dataclass
from dataclasses import field as dataclass_field
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin

from cyclopts import Group, Parameter

from fewer.core.errors import FewerError

if TYPE_CHECKING:
    from fewer.core.strict import StrictSettings
    from fewer.training.callbacks import Callback

__all__ = [
    "LogFlags", "ModelFlags", "Shared", "cpu_only", "flags_of", "given", "refuse_for", "refuse_out", "usable_device",
]  # fmt: skip

WORK = Group("How the work is done", sort_key=90)
SHARED = Group("Every verb", sort_key=99)
_IN_SHARED = ("seed", "device")


def flags_of(schema: type[StrictSettings], name: str, without: Collection[str] = ()) -> Any:
    """The flags of some settings: one per field, with its description, its group and its default in the help.

    Parameters
    ----------
    schema
        Its fields have a ``description``, and may have ``json_schema_extra`` with ``group`` (a heading of the help)
        and ``shown`` (what stands for the default in the help).
    name
        Of the class that is made.
    without
        Fields that get no flag.

    Returns
    -------
    type
        A dataclass for ``cyclopts``. Every field is None unless it was given, since precedence goes by kind.

    Examples
    --------
    >>> from fewer.training.settings import LoopSettings
    >>> flags_of(LoopSettings, "LoopFlags")(steps=3).steps
    3
    """
    groups: dict[str, Group] = {}
    made: list[Any] = []
    for field, info in schema.model_fields.items():
        if field in _IN_SHARED or field in without:
            continue
        extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
        heading = str(extra.get("group", "Settings"))
        group = groups.setdefault(heading, Group(heading, sort_key=11 + len(groups)))
        shown = extra.get("shown", _shown(info.default, f"--{field.replace('_', '-')}"))
        note = f"{info.description or ''} [{shown}]".strip()
        parameter = Parameter(group=group, negative="", show_default=False, help=note)
        made.append((field, Annotated[_flag_type(info.annotation) | None, parameter], dataclass_field(default=None)))
    flags = make_dataclass(name, made)
    flags.__module__ = __name__  # of a module of the standard library the parser would ask nothing
    return Parameter(name="*")(flags)


def _flag_type(annotation: Any) -> Any:
    """What the command line parses for a field: text, unless it is a plain number, a switch or a list of words.

    A number that is written in a way of its own, such as a time, is text here, and the field reads it.
    """
    kinds = [kind for kind in (get_args(annotation) or (annotation,)) if kind is not type(None)]
    if get_origin(annotation) is tuple and str in kinds:
        return list[str]
    return kinds[0] if len(kinds) == 1 and kinds[0] in (int, float, bool) else str


def _shown(default: Any, flag: str) -> str:
    if default is True:
        return f"on; {flag} off leaves it out"
    if default in (None, False, ""):
        return "off" if default is False else "none"
    if isinstance(default, tuple):
        return ",".join(map(str, default)) or "none"
    return f"{default:g}" if isinstance(default, float) else str(default)


def _p(group: Group, short: str | None = None) -> Parameter:
    return Parameter(group=group, negative="", show_default=False, alias=short)


@Parameter(name="*")
@dataclass
class Shared:
    """Flags that mean the same in every verb."""

    out: Annotated[str | None, _p(SHARED, "-o")] = None
    """Where to write"""
    seed: Annotated[int | None, _p(SHARED)] = None
    """Of every random choice [0]"""
    device: Annotated[str | None, _p(SHARED)] = None
    """cpu, or cuda where fewer works on a GPU: not in bench, profile, select and private [cpu]"""
    json: Annotated[bool, _p(SHARED)] = False
    """Print JSON on the standard output, nothing else"""
    quiet: Annotated[bool, _p(SHARED, "-q")] = False
    """Show the result or an error, and no progress"""
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
        from fewer.cli.progress import show_progress

        show_progress(not self.quiet)
        if self.trust:
            from fewer.models.trust import trust_files

            trust_files(self.trust)


@Parameter(name="*")
@dataclass
class LogFlags:
    """Where a training writes its numbers beside its run folder."""

    tensorboard: Annotated[str | None, _p(WORK)] = None
    """Folder for the numbers of every validation, for TensorBoard; history.csv of the run has them as well [none]"""

    def callbacks(self) -> list[Callback]:
        """What is to look on."""
        if self.tensorboard is None:
            return []
        from fewer.training.callbacks import TensorBoard

        return [TensorBoard(self.tensorboard)]


_MODEL = Group("Model and its input", sort_key=5)


@Parameter(name="*")
@dataclass
class ModelFlags:
    """What is said of a model beside its name; :mod:`fewer.models.options` puts it into the spec."""

    checkpoint: Annotated[str | None, _p(_MODEL)] = None
    """Weights of your own: a .safetensors file, or a .pt file that holds tensors only [those of the model]"""
    classes: Annotated[int | None, _p(_MODEL)] = None
    """Outputs of the network that the checkpoint is of [those of the model]"""
    input_size: Annotated[str | None, _p(_MODEL)] = None
    """Side of the input in pixels, or channels and sides: 96 or 1x28x28 [what the model says]"""
    mean: Annotated[str | None, _p(_MODEL)] = None
    """Of the pixels, from 0 to 1: one number or one per channel, with commas [what the model says]"""
    std: Annotated[str | None, _p(_MODEL)] = None
    """Of the pixels, likewise [what the model says]"""

    def spec(self, model: str) -> str:
        """The model's spec with these options."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        if not any(value is not None for value in given.values()):
            return model
        from fewer.models.options import split_spec, with_options

        whole = with_options(model, **given)
        split_spec(whole)  # what cannot be read is told before anything is done
        return whole


def usable_device(shared: Shared) -> None:
    """Refuse a device that torch does not have here, before anything is written.

    Raises
    ------
    FewerError
        When it cannot be used.

    Examples
    --------
    >>> usable_device(Shared(device="cpu"))
    """
    if shared.device not in (None, "cpu"):
        from torch import nn

        from fewer.engine.prepare import on_device

        on_device(nn.Linear(1, 1), str(shared.device))


def cpu_only(shared: Shared) -> None:
    """Refuse a device other than the CPU, in verbs that have no other.

    Raises
    ------
    FewerError
        When another one was asked for.
    """
    if shared.device not in (None, "cpu"):
        raise FewerError(f"device '{shared.device}' cannot be used: this version works on the CPU, --device cpu")


def refuse_for(action: str, owners: Mapping[str, str], asked: Mapping[str, Any]) -> None:
    """Refuse flags that belong to other actions of a verb: they would be ignored without a word.

    Parameters
    ----------
    action
        The one that was asked for, with its verb.
    owners
        For each flag, the words of the actions that heed it.
    asked
        Values by flag; None and nothing where it was not given.

    Raises
    ------
    FewerError
        For the first that has no meaning.
    """
    for flag, value in asked.items():
        if value not in (None, False, ()) and action.rpartition(" ")[2] not in owners[flag].split():
            name = f"--{flag.replace('_', '-')}"
            raise FewerError(f"{name} has no meaning for {action}; it is a flag of: {owners[flag]}")


def refuse_out(shared: Shared, verb: str) -> None:
    """Refuse a place to write to, in verbs that only tell.

    Raises
    ------
    FewerError
        When one was given.
    """
    if shared.out is not None:
        raise FewerError(f"fewer {verb} writes nothing; leave --out {shared.out} out, or send its output to a file")


def given(flags: Any, shared: Shared | None = None) -> dict[str, Any]:
    """The settings among the flags that were given, by name.

    Parameters
    ----------
    flags
        A dataclass whose fields are None unless they were given, such as those of :func:`flags_of`; or None.
    shared
        Gives ``seed`` and ``device``.

    Examples
    --------
    >>> given(None, Shared(seed=3))
    {'seed': 3}
    """
    values: dict[str, Any] = {}
    if flags is not None:
        values = {f.name: getattr(flags, f.name) for f in fields(flags)}
    if shared is not None:
        values |= {"seed": shared.seed, "device": shared.device}
    return {name: value for name, value in values.items() if value is not None}
