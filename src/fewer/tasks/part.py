"""The part of a model that other runtimes can run, where they cannot run the whole of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["RuntimePart"]


@dataclass(frozen=True, eq=False)
class RuntimePart:
    """What of a model goes into a file for other runtimes, and is timed beside them.

    Attributes
    ----------
    module
        The part, or the whole model.
    inputs
        Of the part, one batch each and all of one shape; the first is what it is exported with.
    whole
        An input of the whole model, on which the native kernels choose; a tuple holds several arguments.
    note
        What the part is and what is left to torch, in a sentence for people; empty where it is the whole model.
    dynamic
        Axis of the input and what is counted along it, where any number may come.
    """

    module: nn.Module
    inputs: tuple[Tensor, ...]
    whole: Any
    note: str = ""
    dynamic: Mapping[int, str] = field(default_factory=dict)

    def shaped(self) -> Sequence[Tensor]:
        """The inputs that have the shape of the first."""
        return [x for x in self.inputs if x.shape == self.inputs[0].shape]
