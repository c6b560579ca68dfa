"""One step of a training: every player's losses, gradients and update, or none of it when a number is not finite."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fewer.core.errors import FewerError
from fewer.training.checkpoint import Training
from fewer.training.devices import any_of, average_gradients, mixed_precision, start_alike
from fewer.training.optimise import Optimiser, Player, set_rates
from fewer.training.seeds import seed_step
from fewer.training.shield import shield

__all__ = ["NotFinite", "Stepper"]

_RESERVED = ("step", "seconds", "score")


class NotFinite(FewerError):
    """A loss or a gradient that is no number; the model is as it was before that step."""


@dataclass(eq=False)
class _Turn:
    """A player with what it steps on."""

    player: Player
    optimiser: Any  # wrapped by accelerate
    parameters: list[nn.Parameter]  # latent ones where weights are constrained
    others: list[nn.Parameter]  # of the model, which other players train alone
    clip: float | None


class Stepper:
    """Takes the steps of a training.

    Parameters
    ----------
    state
        What is trained.
    players, how
        Who learns, and the optimiser of those that have none of their own.
    accelerator
        Device, precision and processes.
    seed, accumulate
        Of the settings.
    train_mode
        Whether the model is in training mode.
    tolerate
        Steps in a row that may be left out because they are not finite.
    splits
        The objectives draw this process's part of a batch by themselves; otherwise every process has batches of its
        own numbers.

    Notes
    -----
    The model is not wrapped, whatever the precision and the number of processes: an objective may call any of its
    methods, and a wrapper would only see the forward pass. Mixed precision holds for all that an objective does, and
    gradients are averaged when all of them are there.
    """

    def __init__(
        self,
        state: Training,
        players: Sequence[Player],
        how: Optimiser,
        accelerator: Any,
        *,
        seed: int,
        accumulate: int,
        train_mode: bool,
        tolerate: int,
        splits: bool = False,
    ) -> None:
        self.state, self.accelerator, self.seed, self.accumulate = state, accelerator, seed, accumulate
        self.train_mode, self.tolerate = train_mode, tolerate
        self.model = state.weights.model
        # of all processes and batches of a step, each has a number of its own
        self.every, self.first = (1, 0) if splits else (accelerator.num_processes, accelerator.process_index)
        alike = [*state.weights.parameters(), *state.weights.live(), *self.model.buffers()]
        if state.average is not None:
            alike += [*state.average.values, *state.average.buffers.values()]
        start_alike(alike, accelerator)
        self.turns = []
        for player in players:
            parameters = [q for group in state.optimisers[player.name].param_groups for q in group["params"]]
            mine = set(map(id, parameters))
            pairs = zip(state.weights.parameters(), state.weights.live(), strict=True)
            others = [live for latent, live in pairs if id(latent) not in mine]
            optimiser = accelerator.prepare_optimizer(state.optimisers[player.name])
            clip = (player.optimiser or how).clip
            self.turns.append(_Turn(player, optimiser, parameters, others, clip))
        self.left_out = 0  # steps in a row
        self.whole = True  # whether the weights are those of a finished step
        self._buffers: list[tuple[Tensor, Tensor]] = []  # live ones, and their values before the step

    def step(self, factor: float) -> None:
        """Take one step at the rates of the schedule's factor.

        Raises
        ------
        NotFinite
            When a loss or gradient is not finite.
        """
        fit = self.state.fit
        self.model.train(self.train_mode)
        self._buffers = (
            [(buffer, buffer.detach().clone()) for buffer in self.model.buffers()] if self.train_mode else []
        )
        due = [turn for turn in self.turns if fit.step % turn.player.every == 0]
        try:
            # with several players an interruption between two of them would leave half a step
            with shield() if len(due) > 1 else nullcontext():
                self._take(due, factor)
        except NotFinite:
            self.undo()
            self.left_out += 1
            if self.left_out > self.tolerate or not self.whole:
                raise
            fit.step += 1

    def _take(self, due: Sequence[_Turn], factor: float) -> None:
        losses: dict[str, Tensor] = {}
        for turn in due[:-1]:
            if found := self._gradients(turn):
                losses |= found
                self._update(turn, factor)
        found = self._gradients(due[-1]) if due else {}
        with shield():
            if found:
                self._update(due[-1], factor)
            self._finish(losses | found)

    def _finish(self, losses: Mapping[str, Tensor]) -> None:
        state = self.state
        state.fit.step += 1
        if state.average is not None:
            state.average.follow(state.fit.step)
        for name, loss in losses.items():
            state.losses.setdefault(name, []).append(loss)
        self.left_out, self.whole = 0, True
        self._buffers = []

    def undo(self) -> None:
        """Put the buffers back to where they were before a step that was not finished, and drop its gradients."""
        with torch.no_grad():
            for buffer, before in self._buffers:
                buffer.copy_(before)
        self._buffers = []
        for turn in self.turns:
            turn.optimiser.optimizer.zero_grad()
        self.model.zero_grad()

    def _gradients(self, turn: _Turn) -> dict[str, Tensor]:
        """Losses of a player, whose gradients are then at its parameters; nothing if it takes no turn."""
        losses: dict[str, Tensor] = {}
        with _frozen(turn.others):
            for part in range(self.accumulate):
                number = (self.state.fit.step * self.accumulate + part) * self.every + self.first
                found = self._backward(turn, number)
                for name, loss in found.items():
                    losses[name] = loss if self.accumulate == 1 else losses.get(name, 0) + loss / self.accumulate
        if losses:
            self._prepare(turn)
        return losses

    def _backward(self, turn: _Turn, number: int) -> dict[str, Tensor]:
        """Losses of one batch, with their gradients added to what is there."""
        seed_step(self.seed, number)
        teacher = self.state.average.made if self.state.average is not None else None
        with mixed_precision(self.accelerator, self.model, *([] if teacher is None else [teacher])):
            found = turn.player.objective(self.model, number)
        if found is None:
            return {}
        parts = dict(found) if isinstance(found, Mapping) else {}
        if any(name in _RESERVED or name == "loss" for name in parts):
            raise FewerError(f"a part of a loss may not be called {', '.join((*_RESERVED, 'loss'))}")
        total = sum(parts.values()) if parts else found
        assert isinstance(total, Tensor)
        if any_of(not bool(torch.isfinite(total.detach()).all()), self.accelerator):
            raise NotFinite(self._words("loss", float(total.detach())))
        self.accelerator.backward(total if self.accumulate == 1 else total / self.accumulate)
        head = f"{turn.player.name}." if turn.player.name else ""
        return {f"{head}{name}": loss.detach() for name, loss in {"loss": total, **parts}.items()}

    def _prepare(self, turn: _Turn) -> None:
        """Make of the gradients what the optimiser is to see."""
        self.state.weights.collect()
        average_gradients(turn.parameters, self.accelerator)
        self.accelerator.unscale_gradients(turn.optimiser)
        norm = self._clip(turn)
        # a gradient scaler leaves such steps out by itself, and lowers its scale
        if self.accelerator.scaler is None and not math.isfinite(norm):
            raise NotFinite(self._words("gradient", norm))

    def _update(self, turn: _Turn, factor: float) -> None:
        self.whole = False
        set_rates(turn.optimiser, factor)
        turn.optimiser.step()
        turn.optimiser.zero_grad()
        self.state.weights.install()

    def _clip(self, turn: _Turn) -> float:
        """Norm of the gradient before it is cut to the largest one that is allowed."""
        if turn.clip is not None:
            return float(nn.utils.clip_grad_norm_(turn.parameters, turn.clip))
        gradients = [parameter.grad for parameter in turn.parameters if parameter.grad is not None]
        return float(nn.utils.get_total_norm(gradients))

    def _words(self, what: str, value: float) -> str:
        return (
            f"the {what} is {value} at step {self.state.fit.step + 1}; lower --learning-rate, or train with "
            "--precision no"
        )

    def close(self) -> None:
        """Let the accelerator forget the optimisers."""
        self.accelerator.free_memory()


@contextmanager
def _frozen(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
