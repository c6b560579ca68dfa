"""Networks of MONAI by the name of their class, with arguments that fit into JSON."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from fewer.core.errors import FewerError, near_match

__all__ = ["import_monai", "monai_network"]


def import_monai(what: str) -> Any:
    """Import a module of MONAI, or say how to install it.

    Raises
    ------
    FewerError
        When MONAI is missing or cannot be imported.

    Examples
    --------
    >>> import_monai("monai.losses").DiceLoss.__name__  # doctest: +SKIP
    'DiceLoss'
    """
    import importlib
    import warnings

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MONAI warns of its own future while it is imported
            return importlib.import_module(what)
    except ImportError as error:
        raise FewerError(f"segmentation needs MONAI ({error}): pip install 'fewer[medical]'") from error


def monai_network(name: str, args: Mapping[str, Any]) -> nn.Module:
    """Build a network of ``monai.networks.nets`` with random weights.

    Parameters
    ----------
    name
        Of the class, for example ``UNet``.
    args
        Its arguments.

    Raises
    ------
    FewerError
        When MONAI is missing, has no such network, or refuses the arguments.

    Examples
    --------
    >>> args = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2, "channels": [4, 8], "strides": [2]}
    >>> type(monai_network("UNet", args)).__name__  # doctest: +SKIP
    'UNet'
    """
    nets = import_monai("monai.networks.nets")
    cls = getattr(nets, name, None)
    if not (inspect.isclass(cls) and issubclass(cls, nn.Module)):
        known = [n for n, value in vars(nets).items() if inspect.isclass(value) and issubclass(value, nn.Module)]
        raise FewerError(f"MONAI has no network {name!r}{near_match(name, known)}")
    try:
        return cls(**args)
    except (TypeError, ValueError, AssertionError) as error:
        raise FewerError(f"the MONAI network {name} cannot be built: {' '.join(str(error).split())}") from error
