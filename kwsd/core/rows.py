"""Rows: many streams in one array, one row for each stream."""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
Rows = IntArray | slice
"""Which rows of an array: their indices, or a slice for all of them, which NumPy need not copy."""

T = TypeVar("T", bound=np.generic)


def more_rows(values: NDArray[T], n: int) -> NDArray[T]:
    """A copy with `n` rows of zeros appended."""
    return np.concatenate([values, np.zeros((n, *values.shape[1:]), values.dtype)])
