"""Named optimisers, parameter groups with rates of their own, and players that take turns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from fewer.core.errors import FewerError
from fewer.core.methods import Method, MethodTable
from fewer.training.constrained import Constrained
from fewer.training.settings import LoopSettings

__all__ = [
    "OPTIMISERS",
    "Group",
    "Objective",
    "Optimiser",
    "Player",
    "make_optimiser",
    "make_optimisers",
    "named_parameters",
    "optimiser_of",
    "set_rates",
]

Loss = Tensor | Mapping[str, Tensor] | None
"""What an objective gives: a loss, several that are added up, or None for no turn in this step."""


class Objective(Protocol):
    """What a training makes small. Any function of a model and a number will do."""

    def __call__(self, model: Any, step: int, /) -> Loss:
        """The loss of one batch.

        Parameters
        ----------
        model
            The very one under training: any of its methods may be called.
        step
            Number of the batch, from 0; the same number must always give the same batch. With gradient accumulation
            and in several processes every batch has its own number.
        """
        ...


@dataclass(frozen=True)
class Group:
    """Parameters with a rate or a decay of their own.

    Attributes
    ----------
    match
        Pattern of parameter names, such as ``head.*`` or ``*.bias``; the first group that matches counts.
    rate
        Multiplies the optimiser's rate; 0 keeps the parameters as they are.
    decay
        Weight decay; None takes that of the optimiser.
    """

    match: str
    rate: float = 1.0
    decay: float | None = None


@dataclass(frozen=True)
class Optimiser:
    """How gradients become steps.

    Attributes
    ----------
    name
        A row of :data:`OPTIMISERS`.
    rate
        Learning rate before the factor of the schedule; for ``relative-adam`` in units of the root mean square of the
        parameter that takes the step.
    decay
        Weight decay.
    momentum
        Of ``sgd``.
    betas
        Of the Adam family; None takes those of the optimiser.
    clip
        Largest norm of the gradient of all parameters together; None does not clip.
    groups
        Parameters with values of their own; the rest takes those above.

    Examples
    --------
    >>> head = Group("1.*", rate=10.0, decay=0.0)
    >>> made = make_optimiser(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1)), Optimiser("adamw", 0.01, groups=(head,)))
    >>> [(group["lr"], group["weight_decay"], len(group["params"])) for group in made.param_groups]
    [(0.1, 0.0, 2), (0.01, 0.0001, 2)]
    """

    name: str = "adamw"
    rate: float = 1e-3
    decay: float = 1e-4
    momentum: float = 0.99
    betas: tuple[float, float] | None = None
    clip: float | None = None
    groups: tuple[Group, ...] = ()


Groups = list[dict[str, Any]]


def _adamw(groups: Groups, how: Optimiser) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, lr=how.rate, weight_decay=how.decay, betas=how.betas or (0.9, 0.999))


def _adam(groups: Groups, how: Optimiser) -> torch.optim.Optimizer:
    return torch.optim.Adam(groups, lr=how.rate, weight_decay=how.decay, betas=how.betas or (0.9, 0.999))


def _sgd(groups: Groups, how: Optimiser) -> torch.optim.Optimizer:
    common: dict[str, Any] = {"lr": how.rate, "weight_decay": how.decay}
    return torch.optim.SGD(groups, momentum=how.momentum, nesterov=how.momentum > 0, **common)


def _relative(groups: Groups, how: Optimiser) -> torch.optim.Optimizer:
    # one group for each parameter, because each one's steps are scaled by its own size
    single = [
        {**group, "params": [parameter], "scale": scale}
        for group in groups
        for parameter, scale in zip(group["params"], group.pop("scales"), strict=True)
    ]
    return torch.optim.Adam(single, lr=how.rate, weight_decay=how.decay, betas=how.betas or (0.9, 0.98), fused=True)


OPTIMISERS: MethodTable[Callable[[Groups, Optimiser], torch.optim.Optimizer]] = MethodTable(
    "optimiser",
    [
        Method("adamw", _adamw, "Adam whose weight decay is apart from the gradient", "Loshchilov and Hutter 2019"),
        Method("adam", _adam, "Adam; weight decay is part of the gradient", "Kingma and Ba 2015"),
        Method("sgd", _sgd, "gradient descent with Nesterov momentum", "Sutskever et al. 2013"),
        Method("relative-adam", _relative, "Adam whose steps are relative to the size of each parameter"),
    ],
)
"""Optimisers by name: from parameter groups to an optimiser of torch."""


@dataclass(frozen=True, eq=False)
class Player:
    """One of several parts of a model that learn in turns, each from its own loss, as in a GAN.

    While it is a player's turn, the parameters of the other players are frozen.

    Attributes
    ----------
    name
        Heads the player's losses in the history.
    objective
        See :class:`Objective`.
    parts
        Names of the modules whose parameters it trains; empty for all.
    optimiser
        How; None takes that of the training.
    make
        ``make(parameters)``: an optimiser of torch in place of a named one.
    every
        Takes a turn only in each so-manieth step.
    """

    name: str
    objective: Objective
    parts: Sequence[str] = ()
    optimiser: Optimiser | None = None
    make: Callable[[list[nn.Parameter]], torch.optim.Optimizer] | None = None
    every: int = 1


def optimiser_of(settings: LoopSettings) -> Optimiser:
    """The optimiser that settings describe.

    Examples
    --------
    >>> optimiser_of(LoopSettings(optimiser="sgd", clip=None)).name
    'sgd'
    """
    return Optimiser(
        settings.optimiser, settings.learning_rate, settings.weight_decay, settings.momentum, clip=settings.clip
    )


def make_optimiser(model: nn.Module | Constrained, how: Optimiser, parts: Sequence[str] = ()) -> torch.optim.Optimizer:
    """An optimiser of torch for the parameters of a model that learn.

    Parameters
    ----------
    model
        Or its constrained parameters.
    how
        Name, rates, groups.
    parts
        Names of modules; the parameters of others are left out.

    Raises
    ------
    FewerError
        When no parameter is left to learn, or a group matches none.
    """
    weights = model if isinstance(model, Constrained) else Constrained(model, {}, only_trainable=True)
    named = named_parameters(weights, parts)
    scales = dict(zip(weights.names(), weights.scales(), strict=True)) if how.name == "relative-adam" else {}
    groups: Groups = []
    left = named
    for group in (*how.groups, Group("*")):
        found = [(name, parameter) for name, parameter in left if fnmatchcase(name, group.match)]
        left = [(name, parameter) for name, parameter in left if not fnmatchcase(name, group.match)]
        if not found and group in how.groups:
            raise FewerError(f"no parameter is called {group.match!r}, which is to have its own rate")
        if not found:
            continue
        decay = how.decay if group.decay is None else group.decay
        one: dict[str, Any] = {"params": [parameter for _, parameter in found], "lr": how.rate * group.rate}
        one["weight_decay"] = decay
        if scales:
            one["scales"] = [scales[name] for name, _ in found]
        groups.append(one)
    return OPTIMISERS[how.name].run(groups, how)


def named_parameters(weights: Constrained, parts: Sequence[str] = ()) -> list[tuple[str, nn.Parameter]]:
    """What an optimiser steps on, of some modules or of all.

    Raises
    ------
    FewerError
        When there is none.
    """
    named = [
        (name, parameter)
        for name, parameter in zip(weights.names(), weights.parameters(), strict=True)
        if not parts or any(name == part or name.startswith(f"{part}.") for part in parts)
    ]
    if not named:
        where = f" in {', '.join(parts)}" if parts else ""
        raise FewerError(f"the model has no parameter{where} to train")
    return named


def make_optimisers(
    weights: Constrained, players: Sequence[Player], how: Optimiser
) -> dict[str, torch.optim.Optimizer]:
    """An optimiser for each player, by its name.

    Raises
    ------
    FewerError
        When two players have one name, or one has nothing to train.
    """
    made: dict[str, torch.optim.Optimizer] = {}
    for player in players:
        if player.name in made:
            raise FewerError(f"two players are called {player.name!r}")
        if player.make is None:
            made[player.name] = make_optimiser(weights, player.optimiser or how, player.parts)
        else:
            made[player.name] = player.make([parameter for _, parameter in named_parameters(weights, player.parts)])
    return made


def set_rates(optimiser: torch.optim.Optimizer, factor: float) -> None:
    """Give every group its own rate times a factor, and times its scale where it has one."""
    for group in optimiser.param_groups:
        base = group.setdefault("base_lr", group["lr"])
        group["lr"] = base * factor * group.get("scale", 1.0)
