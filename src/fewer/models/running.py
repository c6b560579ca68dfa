"""Run a model once and watch it, leaving no trace."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedTensorMixin  # type: ignore[attr-defined]

from fewer.core.errors import FewerError
from fewer.data.samples import Samples, leaves, map_tensors
from fewer.kernels.copies import copied_module, set_evaluating
from fewer.models.arguments import advice

Forward = Callable[[nn.Module, Any], Any]


def call(model: nn.Module, example: Any, forward: Forward | None = None) -> Any:
    """Call a model on a tensor, ``*tuple`` or ``**mapping``, or through the user's own forward.

    This is where inputs meet a model: samples become a batch, and the batch moves to the model's device.

    Parameters
    ----------
    model
        Any module.
    example
        Samples, or a batch as the model takes it.
    forward
        ``forward(model, batch)``.

    Raises
    ------
    FewerError
        When the model does not run on the example; the message has the shapes and the model's own error.
    """
    example = copied(model_input(model, example))  # a forward may write into its input
    try:
        return _samples_first(model, call_plainly(model, example, forward))
    except FewerError:
        raise
    except SystemExit as error:
        raise FewerError(
            f"the model ends the program in its forward pass (SystemExit: {error}), so that nothing can be measured"
        ) from error
    except Exception as error:
        shapes = ", ".join(str(tuple(t.shape)) for t in tensors_of(example)) or type(example).__name__
        told = advice(model, example) if forward is None and isinstance(error, TypeError) else ""
        raise FewerError(
            f"the model does not run on an example of shape {shapes}: {told or f'{type(error).__name__}: {error}'}"
        ) from error


_FORMS = "_fewer_outputs"
Form = tuple[int, int]
"""Of a tensor of a model's answer: the dimension that its samples are along, and how many dimensions it has."""


def put_samples_first(model: nn.Module, forms: Sequence[Form] = ()) -> None:
    """Have :func:`call` turn each tensor of a model's answer so that its samples come first; nothing undoes that.

    A lone sample that has lost its dimension, as to ``squeeze()``, gets it back. Copies of the model are treated alike.
    Its own answer, when it is called by itself, stays as it is.

    Parameters
    ----------
    model
        Gets an attribute that its copies have as well.
    forms
        Of its floating-point outputs, in order.

    Examples
    --------
    >>> steps = nn.Identity()
    >>> put_samples_first(steps, [(1, 3)])
    >>> call(steps, torch.zeros(7, 2, 3)).shape, steps(torch.zeros(7, 2, 3)).shape
    (torch.Size([2, 7, 3]), torch.Size([7, 2, 3]))
    """
    vars(model).pop(_FORMS, None)
    if forms:
        vars(model)[_FORMS] = tuple(forms)


def forms_of(model: nn.Module) -> tuple[Form, ...]:
    """What :func:`put_samples_first` was told of a model; empty where its answers are taken as they come."""
    return getattr(model, "__dict__", {}).get(_FORMS, ())


def _samples_first(model: nn.Module, output: Any) -> Any:
    forms = forms_of(model)
    if not forms:
        return output
    left = iter(forms)

    def turned(tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point() and not tensor.is_complex():
            return tensor
        pairs = int(tensor.is_complex())  # a form is that of pairs of real numbers
        axis, dimensions = next(left, (0, tensor.ndim + pairs))
        if tensor.ndim + pairs == dimensions - 1:
            return tensor[None]
        return tensor.movedim(axis, 0) if axis < tensor.ndim else tensor

    whole = vars(output) if not isinstance(output, (Tensor, Mapping, tuple, list)) else output
    return map_tensors(whole, turned)


def numbers_of(output: Any) -> list[Tensor]:
    """Every tensor of real or complex numbers in what a model gives, complex ones as pairs of real ones.

    Objects with attributes (such as the outputs of transformers, or dataclasses) count as mappings.

    Examples
    --------
    >>> [tuple(t.shape) for t in numbers_of((torch.zeros(2, dtype=torch.cfloat), {"a": torch.ones(3), "b": 1}))]
    [(2, 2), (3,)]
    """
    if not isinstance(output, (Tensor, Mapping, tuple, list)) and hasattr(output, "__dict__"):
        output = vars(output)
    found = [t for t in leaves(output) if t.is_floating_point() or t.is_complex()]
    plain = torch.strided
    return [torch.view_as_real(t.resolve_conj()) if t.is_complex() and t.layout is plain else t for t in found]


def call_plainly(model: nn.Module, batch: Any, forward: Forward | None = None) -> Any:
    """As :func:`call`, on a batch that is where the model is; the model's own errors come through as they are."""
    if forward is not None:
        return forward(model, batch)
    if isinstance(batch, Mapping):
        return model(**batch)
    if isinstance(batch, (tuple, list)):
        return model(*batch)
    return model(batch)


def model_input(model: nn.Module, example: Any) -> Any:
    """Samples, or a batch, as the model takes it, on the device of its first parameter.

    Examples
    --------
    >>> from fewer.data.samples import TensorSamples
    >>> model_input(nn.Linear(2, 1), TensorSamples(torch.ones(1, 2)))
    tensor([[1., 1.]])
    """
    batch = example.batch() if isinstance(example, Samples) else example
    device = device_of(model)
    return batch if device is None else to_device(batch, device)


def device_of(model: nn.Module) -> torch.device | None:
    """Device of a model's first parameter or buffer; None where it has neither."""
    first = next(model.parameters(), None)
    first = next(model.buffers(), None) if first is None else first
    return None if first is None else first.device


tensors_of = leaves


def copied(value: Any) -> Any:
    """Nested tuples, lists and mappings with copies of their tensors; other things as they are.

    Examples
    --------
    >>> x = torch.zeros(1)
    >>> copied([x, 3])[0] is x
    False
    """
    if isinstance(value, Tensor):
        return value.clone()
    if type(value) in (list, tuple):
        return type(value)(copied(item) for item in value)
    if type(value) is dict:
        return {key: copied(item) for key, item in value.items()}
    return value


def input_dtype(model: nn.Module, example: Any, forward: Forward | None = None) -> torch.dtype:
    """The floating-point type that a model takes its input in: that of its weights.

    Where weights are of several types, they are tried in the order of the parameters, then fp32.

    Examples
    --------
    >>> input_dtype(nn.Linear(2, 1).double(), torch.zeros(1, 2))
    torch.float64
    """
    kinds = list(dict.fromkeys(p.dtype for p in model.parameters() if p.is_floating_point()))
    if len(kinds) > 1:
        twin = copied_module(model)
        for kind in dict.fromkeys([*kinds, torch.float32]):
            with contextlib.suppress(FewerError), evaluating(twin):
                call(twin, example.to(kind), forward)
                return kind
    return kinds[0] if kinds else getattr(example, "dtype", torch.float32)


def batch_size(example: Any) -> int:
    """Samples in an example: the first dimension of its first tensor, at least 1."""
    if isinstance(example, Samples):
        return len(example)
    tensors = tensors_of(example)
    return max(1, tensors[0].shape[0]) if tensors and tensors[0].ndim else 1


def to_device(example: Any, device: torch.device) -> Any:
    """The example with its tensors on a device; the very same object where they are there already."""
    if isinstance(example, Samples) or all(t.device == device for t in leaves(example)):
        return example
    return map_tensors(example, lambda t: t.to(device))


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, no gradients and no fused attention path; every module's own training flag comes back.

    PyTorch's fused transformer path skips the modules inside, so that hooks and counters would miss them.
    """
    flags = [(module, module.training) for module in model.modules()]
    try:
        set_evaluating(model)
        with _SLOW_PATH, torch.no_grad():
            yield
    finally:
        for module, flag in flags:
            module.training = flag


class _SlowPath:
    """Switches the fused attention path off. The switch is one for all threads, so the last one out turns it back."""

    def __init__(self) -> None:
        self._lock, self._inside, self._before = Lock(), 0, True

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._before = torch.backends.mha.get_fastpath_enabled()
                torch.backends.mha.set_fastpath_enabled(False)
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                torch.backends.mha.set_fastpath_enabled(self._before)


_SLOW_PATH = _SlowPath()


def observe_outputs(
    model: nn.Module,
    example: Any,
    modules: Sequence[nn.Module],
    visit: Callable[[nn.Module, Any], None],
    forward: Forward | None = None,
) -> Any:
    """Run a model once in evaluation mode and call ``visit(module, output)`` after each call of the given modules.

    Parameters
    ----------
    model : nn.Module
        Only our own hooks are added and removed, also on an error.
    example : Tensor, tuple or mapping
        Moved to the device of the model's first parameter.
    modules : sequence of nn.Module
        The modules to watch.
    visit : callable
        Must not change the output.
    forward : callable, optional
        ``forward(model, example)``.

    Returns
    -------
    object
        The model's output.
    """
    lazy = any(isinstance(p, UninitializedTensorMixin) for p in [*model.parameters(), *model.buffers()])
    if lazy:
        # a forward would initialise the user's model; the copy may be initialised instead
        twin = copied_module(model)
        back = dict(zip(twin.modules(), model.modules(), strict=True))
        wanted = set(modules)
        watched = [(copied, original) for copied, original in back.items() if original in wanted]
        model = twin
    else:
        watched = [(module, module) for module in modules]
    first = next((p for p in model.parameters()), None)
    if first is not None:
        example = to_device(example, first.device)
    handles = []
    try:
        for module, original in watched:

            def hook(_module: nn.Module, _inputs: Any, output: Any, original: nn.Module = original) -> None:
                visit(original, output)

            handles.append(module.register_forward_hook(hook))
        with evaluating(model):
            return call(model, example, forward)
    finally:
        for handle in handles:
            handle.remove()


@contextlib.contextmanager
def attributes_kept(model: nn.Module) -> Iterator[None]:
    """Give every module its own attributes and buffers back at the end, as they were.

    A forward pass that keeps something of its call (``self.last = x``) keeps what an exporter feeds it with: tensors
    without numbers, which nothing can copy.

    Examples
    --------
    >>> net = nn.Linear(1, 1)
    >>> with attributes_kept(net):
    ...     net.last = torch.zeros(1)
    >>> hasattr(net, "last")
    False
    """
    before = [(module, dict(vars(module)), dict(module._buffers)) for module in model.modules()]
    try:
        yield
    finally:
        for module, attributes, buffers in before:
            own = vars(module)
            for name in own.keys() - attributes.keys():
                del own[name]
            own.update(attributes)
            module._buffers.clear()
            module._buffers.update(buffers)


@contextlib.contextmanager
def use_threads(threads: int | None) -> Iterator[None]:
    """Limit torch and the kernels to so many threads; None leaves them as they are."""
    before = torch.get_num_threads()
    try:
        if threads is not None:
            torch.set_num_threads(threads)
        yield
    finally:
        torch.set_num_threads(before)
