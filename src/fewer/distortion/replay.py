"""Forward passes that pay only for what can have changed: everything before the changed layer is replayed from memory.

No graph is traced. One dense pass notes when each module is entered and left. A module that runs once and has
finished before the changed layer starts can only give the output it gave before, so its forward is replaced by that
output. Replaying whole blocks skips all their insides; the glue between modules runs as always.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from fewer.models.running import Forward, call, call_plainly, evaluating, model_input, tensors_of


class _Reached(BaseException):
    """The changed layer was entered; the rest is not needed. No ``except Exception`` of a model catches it."""


class Timeline:
    """When each module of a model is entered and left during one forward pass.

    Parameters
    ----------
    model
        A private copy: nothing is changed, but hooks are added for one pass.
    batch
        Model input.
    forward
        ``forward(model, batch)``.
    """

    def __init__(self, model: nn.Module, batch: Any, forward: Forward | None = None) -> None:
        self.entered: dict[nn.Module, list[int]] = {}
        self.left: dict[nn.Module, list[int]] = {}
        # modules that change their input in place do something that their output alone does not replay
        self.changing: set[nn.Module] = set()
        versions: list[list[tuple[Tensor, int]]] = []
        clock = 0
        handles = []

        def enter(module: nn.Module, inputs: Any, keywords: Any) -> None:
            nonlocal clock
            clock += 1
            self.entered.setdefault(module, []).append(clock)
            versions.append([(t, t._version) for t in tensors_of((inputs, keywords)) if not t.is_inference()])

        def leave(module: nn.Module, _inputs: Any, _output: Any) -> None:
            nonlocal clock
            clock += 1
            self.left.setdefault(module, []).append(clock)
            if any(t._version != version for t, version in versions.pop()):
                self.changing.add(module)

        try:
            for module in model.modules():
                handles.append(module.register_forward_pre_hook(enter, with_kwargs=True))
                handles.append(module.register_forward_hook(leave))
            with evaluating(model):
                call(model, batch, forward)
        finally:
            for handle in handles:
                handle.remove()

    def finished_before(self, model: nn.Module, users: Sequence[nn.Module]) -> list[nn.Module]:
        """Largest modules that run once and are done before any of ``users`` starts."""
        start = min(self.entered[user][0] for user in users)
        found: list[nn.Module] = []
        covered: set[nn.Module] = set()
        for module in model.modules():  # parents come before their children
            once = len(self.entered.get(module, ())) == 1 and len(self.left.get(module, ())) == 1
            if module in covered or module is model or module in self.changing:
                continue
            if not once or self.left[module][0] > start:
                continue
            found.append(module)
            covered.update(module.modules())
        return found


class Replay:
    """Evaluate a model over fixed batches, again and again, from one layer on.

    Parameters
    ----------
    model
        A private copy in evaluation mode; its modules' ``forward`` is patched while it runs.
    batches
        Fixed model inputs.
    forward
        ``forward(model, batch)``.

    Examples
    --------
    >>> import torch
    >>> net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> replay = Replay(net, [torch.ones(1, 4)])
    >>> replay.start_at([net[2]])
    >>> bool(torch.equal(replay.run(0), net(torch.ones(1, 4))))
    True
    """

    def __init__(self, model: nn.Module, batches: Sequence[Any], forward: Forward | None = None) -> None:
        self.model, self.batches, self.forward = model, batches, forward
        self.timeline = Timeline(model, batches[0], forward)
        self.cache: dict[nn.Module, list[Any]] = {}
        self.enabled = True
        self.reason = ""  # why it was switched off

    def start_at(self, users: Sequence[nn.Module]) -> None:
        """Fill the memory for changes of a layer; ``users`` are the modules that hold its weight."""
        if not self.enabled:
            return
        wanted = self.timeline.finished_before(self.model, users)
        missing = [m for m in wanted if m not in self.cache]
        if missing:
            # what is in memory stays valid (it ran before), so the pass that fills the gaps is short as well
            for module in missing:
                self.cache[module] = []
            for index in range(len(self.batches)):
                self._record(index, missing, users)
        # modules inside a larger one that is now in memory, and siblings inside blocks left behind, are not needed
        keep = set(wanted)
        self.cache = {m: outputs for m, outputs in self.cache.items() if m in keep}
        if any(len(outputs) != len(self.batches) for outputs in self.cache.values()):
            self._give_up("it takes another path for other images")

    def _give_up(self, reason: str) -> None:
        self.enabled, self.reason = False, reason
        self.cache.clear()

    def _record(self, index: int, missing: Sequence[nn.Module], users: Sequence[nn.Module]) -> None:
        patched = {m: outputs for m, outputs in self.cache.items() if len(outputs) == len(self.batches)}
        replaced = _Patches()
        handles = []

        def stop(_module: nn.Module, _inputs: Any) -> None:
            raise _Reached

        try:
            for module, outputs in patched.items():
                replaced.set(module, _constant(outputs[index]))
            for module in missing:
                replaced.set(module, _recorder(module, self.cache[module]))
            handles = [user.register_forward_pre_hook(stop, prepend=True) for user in users]
            with evaluating(self.model):
                # the friendly errors of ``call`` would hide our stop signal
                call_plainly(self.model, model_input(self.model, self.batches[index]), self.forward)
        except _Reached:
            pass
        finally:
            for handle in handles:
                handle.remove()
            replaced.undo()

    def run(self, index: int) -> Any:
        """Output of the model for one batch, with everything before the layer replayed."""
        replaced = _Patches()
        try:
            for module, outputs in self.cache.items():
                replaced.set(module, _constant(outputs[index]))
            with evaluating(self.model):
                return call(self.model, self.batches[index], self.forward)
        finally:
            replaced.undo()

    def check(self, users: Sequence[nn.Module], wanted: Any, index: int = 0, tolerance: float = 1e-5) -> bool:
        """Compare a replayed pass with the dense output; switch replaying off when they differ.

        A model whose modules talk to each other outside their inputs and outputs cannot be replayed.
        """
        from fewer.distortion.outputs import Reference

        self.start_at(users)
        if not self.cache:
            return self.enabled
        try:
            change = float(Reference([wanted]).change(0, self.run(index)).max())
        except Exception as error:  # any error of foreign code: the model as a whole did run, so it is ours to avoid
            self._give_up(f"a replayed pass raises {type(error).__name__}: {str(error)[:120]}")
            return False
        if not change <= tolerance**2:
            self._give_up("a replayed pass gives another output: its modules share more than inputs and outputs")
        return self.enabled


class _Patches:
    """Instance-level ``forward`` replacements that can be taken back, also over an earlier instance-level one."""

    def __init__(self) -> None:
        self._before: list[tuple[nn.Module, Any]] = []

    def set(self, module: nn.Module, function: Any) -> None:
        self._before.append((module, module.__dict__.get("forward")))
        module.__dict__["forward"] = function

    def undo(self) -> None:
        for module, before in reversed(self._before):
            if before is None:
                module.__dict__.pop("forward", None)
            else:
                module.__dict__["forward"] = before


def _copied(value: Any) -> Any:
    """A copy of an output, because in-place layers downstream would change the remembered one."""
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, dict):
        twin = copy.copy(value)  # keeps the class: outputs of transformers are dictionaries with attributes
        for key, part in value.items():
            twin[key] = _copied(part)
        return twin
    if isinstance(value, (tuple, list)):
        copies = [_copied(v) for v in value]
        return type(value)(*copies) if hasattr(value, "_fields") else type(value)(copies)
    return value


def _constant(output: Any) -> Any:
    def forward(*_args: Any, **_kwargs: Any) -> Any:
        return _copied(output)

    return forward


def _recorder(module: nn.Module, outputs: list[Any]) -> Any:
    original = module.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        output = original(*args, **kwargs)
        outputs.append(_copied(output))
        return output

    return forward
