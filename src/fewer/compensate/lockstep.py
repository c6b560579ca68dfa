"""Stop a forward pass at chosen layers: look at a layer's input, change the layer, go on."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from fewer.core.errors import FewerError
from fewer.models.inputs import layer_input
from fewer.models.running import Forward, call_plainly, evaluating, model_input

__all__ = ["PausedForward", "PausedForwards", "in_step"]


class _Abandoned(BaseException):
    """Ends the model's thread when nobody waits for it any more; no ``except Exception`` of a model catches it."""


class PausedForward:
    """A forward pass, in a thread of its own, that pauses whenever a module of a name is first called.

    Two of these in step, one over the dense model and one over the model being compressed, show for each layer what
    its input was and what it has become, with one forward pass each and without storing activations.

    Parameters
    ----------
    model
        In evaluation mode.
    inputs
        Model input: one batch of the calibration set, as few of them as can be.
    stops
        Module -> name to report; modules of one name (users of a tied weight) pause the pass once.
    forward
        ``forward(model, inputs)``.

    Examples
    --------
    >>> net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    >>> with PausedForward(net, torch.ones(1, 2), {net[0]: "first", net[2]: "last"}) as walk:
    ...     names = [walk.advance()[0], walk.advance()[0], walk.advance()]
    >>> names
    ['first', 'last', None]
    """

    def __init__(
        self, model: nn.Module, inputs: Any, stops: Mapping[nn.Module, str], forward: Forward | None = None
    ) -> None:
        self.model, self.inputs, self.forward = model, model_input(model, inputs), forward
        self.output: Any = None
        self._stops = dict(stops)
        self._paused: tuple[str, Tensor] | None = None
        self._error: BaseException | None = None
        self._resume, self._reached = threading.Semaphore(0), threading.Semaphore(0)
        self._abandoned = self._finished = False
        self._thread: threading.Thread | None = None
        self._handles: list[Any] = []

    def __enter__(self) -> PausedForward:
        seen: set[str] = set()

        def pause(module: nn.Module, inputs: tuple[Tensor, ...], keywords: dict[str, Any]) -> None:
            name = self._stops[module]
            # passes over other batches run through the same modules, in threads of their own
            if name in seen or threading.current_thread() is not self._thread:
                return
            seen.add(name)
            self._paused = (name, layer_input(inputs, keywords))
            self._reached.release()
            self._resume.acquire()
            self._paused = None
            if self._abandoned:
                raise _Abandoned

        self._handles = [module.register_forward_pre_hook(pause, with_kwargs=True) for module in self._stops]
        threads = torch.get_num_threads()

        def walk() -> None:
            self._resume.acquire()
            try:
                if not self._abandoned:
                    torch.set_num_threads(threads)
                    with torch.no_grad():
                        self.output = self._run()
            except _Abandoned:
                pass
            except BaseException as error:  # handed to the caller's thread
                self._error = error
            finally:
                self._paused, self._finished = None, True
                self._reached.release()

        self._thread = threading.Thread(target=walk, name="fewer-forward", daemon=True)
        self._thread.start()
        return self

    def _run(self) -> Any:
        with evaluating(self.model):
            return call_plainly(self.model, self.inputs, self.forward)

    def advance(self) -> tuple[str, Tensor] | None:
        """Go on to the next layer; its name and input, or None at the end (``output`` then holds the result)."""
        if not self._finished:
            self._resume.release()
            self._reached.acquire()
        if self._error is not None:
            raise self._error
        return self._paused

    def __exit__(self, *_: object) -> None:
        self._abandoned = True
        self._resume.release()
        if self._thread is not None:
            self._thread.join()
        for handle in self._handles:
            handle.remove()


class PausedForwards:
    """Forward passes over several batches, in step: for inputs that do not fit into one.

    Parameters
    ----------
    model, stops, forward
        As for :class:`PausedForward`.
    batches
        Model inputs. Each has a thread of its own and keeps its activations, so that memory is that of all at once.

    Examples
    --------
    >>> net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    >>> with PausedForwards(net, [torch.ones(1, 2), torch.ones(3, 2)], {net[0]: "first"}) as walk:
    ...     name, inputs = walk.advance()
    >>> name, [tuple(x.shape) for x in inputs]
    ('first', [(1, 2), (3, 2)])
    """

    def __init__(
        self,
        model: nn.Module,
        batches: Sequence[Any],
        stops: Mapping[nn.Module, str],
        forward: Forward | None = None,
    ) -> None:
        self._walks = [PausedForward(model, batch, stops, forward) for batch in batches]
        self._stack = ExitStack()

    def __enter__(self) -> PausedForwards:
        for walk in self._walks:
            self._stack.enter_context(walk)
        return self

    def advance(self) -> tuple[str, list[Tensor]] | None:
        """Go on to the next layer in every batch; its name and inputs, or None at the end.

        Raises
        ------
        FewerError
            When batches take different paths through the model.
        """
        found = [walk.advance() for walk in self._walks]
        names = {None if one is None else one[0] for one in found}
        if len(names) > 1:
            layers = " or ".join(sorted(map(str, names)))
            raise FewerError(
                f"the model takes another path for other inputs ({layers} comes next), so its layers cannot be "
                "repaired in order; exclude the layers that not all inputs reach"
            )
        if found[0] is None:
            return None
        return found[0][0], [one[1] for one in found if one is not None]

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)


def in_step(reference: PausedForwards, walk: PausedForwards) -> Iterator[tuple[str, list[Tensor], list[Tensor]]]:
    """Each layer with its inputs in a dense model, and in one that is being compressed, in the order of the latter.

    Where experts are chosen by values, or a pass ends early, a cut sends other rows to a layer than the dense model
    does, or none. Rows that do not belong together tell nothing about each other: then the layer is given the inputs
    that it will really get in place of the dense ones, as the very same list. Layers that the compressed model does not
    reach come last, with the inputs of the dense model.

    Parameters
    ----------
    reference, walk
        Passes over the same batches, that have begun and gone nowhere.

    Examples
    --------
    >>> dense, net, x = nn.Sequential(nn.Linear(2, 2)), nn.Sequential(nn.Linear(2, 2)), torch.ones(1, 2)
    >>> with PausedForwards(dense, [x], {dense[0]: "a"}) as one, PausedForwards(net, [x], {net[0]: "a"}) as two:
    ...     [name for name, wanted, inputs in in_step(one, two)]
    ['a']
    """
    passed: dict[str, list[Tensor]] = {}

    def in_dense(name: str | None) -> list[Tensor] | None:
        while name not in passed and (there := reference.advance()) is not None:
            passed[there[0]] = there[1]
        return None if name is None else passed.pop(name, None)

    while (here := walk.advance()) is not None:
        name, inputs = here
        wanted = in_dense(name)
        alike = wanted is not None and [x.shape for x in wanted] == [x.shape for x in inputs]
        yield name, wanted if wanted is not None and alike else inputs, inputs
    in_dense(None)
    for name, wanted in passed.items():
        yield name, wanted, wanted
