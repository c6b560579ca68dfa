"""Real handwritten digits that scikit-learn brings along, read without importing it."""

from __future__ import annotations

import gzip

import numpy as np

from fewer.core.errors import FewerError
from fewer.data.assets import package_folder

__all__ = ["real_digits"]


def real_digits(seed: int = 0, test: int = 500) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """1,797 digits of 8 x 8 pixels, written by people for the NIST and reduced by Alpaydin and Kaynak (1998).

    Parameters
    ----------
    seed
        Of the split.
    test
        So many for judging.

    Returns
    -------
    tuple
        ``(images, labels)`` to learn from and to judge with; images [N, 1, 8, 8] from 0 to 1 as float32.

    Raises
    ------
    FewerError
        When scikit-learn is not installed.

    Examples
    --------
    >>> (images, labels), (held, _) = real_digits()
    >>> images.shape, held.shape, float(images.max())
    ((1297, 1, 8, 8), (500, 1, 8, 8), 1.0)
    """
    folder = package_folder("sklearn")
    path = None if folder is None else folder / "datasets" / "data" / "digits.csv.gz"
    if path is None or not path.is_file():
        raise FewerError("the digits come with scikit-learn, which is not installed; run: pip install scikit-learn")
    with gzip.open(path, "rt") as handle:
        table = np.loadtxt(handle, delimiter=",")
    images, labels = (table[:, :64] / 16).astype(np.float32).reshape(-1, 1, 8, 8), table[:, 64].astype(np.int64)
    order = np.random.default_rng(seed).permutation(len(labels))
    held, known = order[:test], order[test:]
    return (images[known], labels[known]), (images[held], labels[held])
