"""Building what a file from anyone describes: no network, no pickle, no program, and no more memory than it may."""

from __future__ import annotations

import math
import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fewer.core.errors import FewerError, near_match

__all__ = ["MONAI_NETWORKS", "TIMM_ARGUMENTS", "alone", "build_within", "check_values", "plain_name"]

TIMM_ARGUMENTS = (
    "num_classes", "in_chans", "img_size", "global_pool", "drop_rate", "drop_path_rate", "proj_drop_rate",
    "attn_drop_rate", "patch_drop_rate", "output_stride", "dynamic_img_size", "init_values", "class_token",
)  # fmt: skip
"""Arguments of ``timm.create_model`` that a recipe may give: they are sizes and switches, and name no file."""

MONAI_NETWORKS = (
    "AHNet", "AttentionUnet", "BasicUNet", "BasicUNetPlusPlus", "BasicUnet", "Classifier", "DenseNet", "DiNTS",
    "Discriminator", "DynUNet", "Generator", "HighResNet", "MedNeXt", "Regressor", "ResNet", "SegResNet",
    "SegResNetDS", "SegResNetDS2", "SegResNetVAE", "SENet", "SwinUNETR", "UNet", "UNETR", "Unet", "VNet", "ViT",
    "ViTAutoEnc",
)  # fmt: skip
"""Networks of MONAI that a recipe may name: their classes build layers, and fetch no weights."""

_DRAWN = {"empty", "zeros", "ones", "full", "rand", "randn", "randint", "randperm", "arange", "linspace", "eye",
          "empty_strided", "new_empty", "new_zeros", "new_ones", "new_full", "empty_like", "zeros_like"}  # fmt: skip
_NETWORK = ("socket.connect", "socket.getaddrinfo", "socket.sendto", "urllib.Request")
_PROGRAMS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty",
             "pty.spawn", "os.startfile")  # fmt: skip
_FETCHING = re.compile(r"pretrain|url|path|file|dir$|folder|checkpoint|weights?$|progress|hub|download|cache|token$")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_state = threading.local()
_hooked = False


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if not getattr(_state, "alone", 0):
        return
    if event in _NETWORK:
        # the error of a machine without network: libraries then take what is in their cache
        raise ConnectionRefusedError("fewer opens a run without the network")
    if event in _PROGRAMS:
        raise PermissionError(f"fewer opens a run without starting programs ({event})")
    if event == "pickle.find_class":
        raise PermissionError("fewer opens a run without unpickling anything")


@contextmanager
def alone() -> Iterator[None]:
    """Let this thread reach neither the network nor a program nor a pickle inside of a ``with`` block.

    It is the second line of defence behind the lists of what a recipe may name: whatever a library does with an
    argument that looked harmless ends in an error.

    Examples
    --------
    >>> import socket
    >>> with alone():
    ...     socket.create_connection(("127.0.0.1", 9))
    Traceback (most recent call last):
    ConnectionRefusedError: fewer opens a run without the network
    """
    global _hooked
    if not _hooked:
        sys.addaudithook(_refuse)  # it cannot be taken off again, and does nothing outside of these blocks
        _hooked = True
    _state.alone = getattr(_state, "alone", 0) + 1
    try:
        yield
    finally:
        _state.alone -= 1


class _Room(TorchDispatchMode):
    """Adds up the memory that a constructor asks torch for, and stops it before it gets more than there is room for."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room, self.taken, self.made = room, 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in _DRAWN:
            self.made += 1
            self._take(_bytes_asked(args, kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _take(self, size: int) -> None:
        self.taken += size
        if self.taken > self.room or self.made > 20_000:
            raise FewerError(
                f"the recipe describes a network of more than {self.room / 1e6:.0f} MB, which its weights file does "
                "not hold; it is damaged, or made to fill the memory"
            )


def _bytes_asked(args: Any, kwargs: Mapping[str, Any]) -> int:
    sizes = next((a for a in args if isinstance(a, (list, tuple, torch.Size))), None)
    if sizes is not None and all(isinstance(n, int) for n in sizes):
        count = math.prod(max(0, n) for n in sizes)
    elif args and isinstance(args[0], torch.Tensor):
        count = args[0].numel()
    else:
        numbers = [abs(a) for a in args if isinstance(a, (int, float)) and not isinstance(a, bool)]
        count = int(min(max(numbers, default=0), 2**62))
    dtype = kwargs.get("dtype") or torch.float32
    return count * dtype.itemsize


def build_within(make: Callable[[], Any], room: int, what: str) -> Any:
    """Call a constructor that a recipe names, alone and within some memory.

    Parameters
    ----------
    make
        Without arguments.
    room
        Bytes of all tensors that it may make.
    what
        For the message.

    Raises
    ------
    FewerError
        For whatever goes wrong in it.

    Examples
    --------
    >>> build_within(lambda: torch.nn.Linear(10**6, 10**6), 10**9, "net")
    Traceback (most recent call last):
    ...
    fewer.core.errors.FewerError: the recipe describes a network of more than 1000 MB, which its weights file does \
not hold; it is damaged, or made to fill the memory
    """
    try:
        with alone(), _Room(room):
            return make()
    except FewerError:
        raise
    except KeyError as error:
        raise FewerError(f"{what} lacks the key {error.args[0]!r}; pass architecture= a factory") from None
    except Exception as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise FewerError(f"{what} cannot be built ({type(error).__name__}: {reason}); save the run again") from error


def plain_name(name: Any, what: str) -> str:
    """A name that is no path and no address, or a :class:`FewerError`.

    Examples
    --------
    >>> plain_name("resnet18.a1_in1k", "model")
    'resnet18.a1_in1k'
    """
    if name is None:
        raise FewerError(f"the recipe lacks the key 'name' of its {what}; pass architecture= a factory")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise FewerError(f"the {what} of a recipe is a plain name, not {name!r}")
    return name


def check_values(values: Any, known: Any, what: str, depth: int = 0) -> dict[str, Any]:
    """Arguments that a recipe gives to a constructor: known names, and values that name no place.

    Parameters
    ----------
    values
        From the recipe.
    known
        Names that are allowed; None for all that do not sound as if they fetched something.
    what
        For the message.

    Raises
    ------
    FewerError
        For an unknown name, and for a value that could be a file, an address or code.

    Examples
    --------
    >>> check_values({"checkpoint_path": "a.bin"}, TIMM_ARGUMENTS, "timm model")
    Traceback (most recent call last):
    ...
    fewer.core.errors.FewerError: the recipe gives its timm model the argument 'checkpoint_path', which no recipe \
may give; known are attn_drop_rate, class_token, drop_path_rate, drop_rate, dynamic_img_size, global_pool, img_size, \
in_chans, init_values, num_classes, output_stride, patch_drop_rate and 1 more
    """
    if not isinstance(values, dict):
        raise FewerError(f"the arguments of the recipe's {what} are no JSON object")
    for name, value in values.items():
        if (known is not None and name not in known) or (known is None and _FETCHING.search(name.lower())):
            hint = near_match(name, known) if known is not None else ""
            raise FewerError(f"the recipe gives its {what} the argument {name!r}, which no recipe may give{hint}")
        _check_value(value, f"{what}: {name}", depth)
    return values


def _check_value(value: Any, where: str, depth: int) -> None:
    if depth > 4:
        raise FewerError(f"the recipe's {where} is nested too deeply")
    if isinstance(value, dict):
        check_values(value, None, where, depth + 1)
    elif isinstance(value, (list, tuple)):
        if len(value) > 4096:
            raise FewerError(f"the recipe's {where} has {len(value)} values")
        for one in value:
            _check_value(one, where, depth + 1)
    elif isinstance(value, str):
        if len(value) > 200 or re.search(r"[/\\:\x00]|\.py\b", value):
            raise FewerError(f"the recipe's {where} is {value[:80]!r}: a recipe names no file and no address")
    elif isinstance(value, (int, float)) and not (math.isfinite(value) and abs(value) <= 2**31):
        raise FewerError(f"the recipe's {where} is {value!r}, which no network has")
