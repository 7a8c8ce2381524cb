"""What a build has met before, in memory that ten million pictures leave room in: 16 bytes a picture.

Names and contents are known by 64 bits of their SHA-256. Of ten million pictures two different ones share such a key
with a probability of 3e-6, and the price would be one picture dropped as a copy.
"""

import hashlib
from typing import Final

import numpy as np
from numpy.typing import NDArray

_MERGE_AT: Final = 4096


def key_of(data: bytes) -> int:
    """The first 64 bits of SHA-256."""
    return int.from_bytes(hashlib.sha256(data).digest()[:8], "big")


class Seen:
    """Keys and the number that each was first given: a sorted array, and what came since the last merge."""

    def __init__(self) -> None:
        self._keys_N: NDArray[np.uint64] = np.zeros(0, np.uint64)
        self._numbers_N: NDArray[np.int64] = np.zeros(0, np.int64)
        self._recent: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._keys_N) + len(self._recent)

    def find(self, key: int) -> int | None:
        """The number of a key, None if it was not met."""
        if key in self._recent:
            return self._recent[key]
        place = int(np.searchsorted(self._keys_N, np.uint64(key)))
        found = place < len(self._keys_N) and int(self._keys_N[place]) == key
        return int(self._numbers_N[place]) if found else None

    def add(self, key: int, number: int) -> None:
        """Note a key that `find` does not know."""
        self._recent[key] = number
        if len(self._recent) >= _MERGE_AT:
            self._merge()

    def extend(self, keys_M: NDArray[np.uint64], numbers_M: NDArray[np.int64]) -> None:
        """Note many keys; of one that was met before the first number stays."""
        self._merge()
        self._put(np.concatenate([self._keys_N, keys_M]), np.concatenate([self._numbers_N, numbers_M]))

    def _merge(self) -> None:
        if self._recent:
            keys_R = np.fromiter(self._recent.keys(), np.uint64, len(self._recent))
            numbers_R = np.fromiter(self._recent.values(), np.int64, len(self._recent))
            self._recent = {}
            self._put(np.concatenate([self._keys_N, keys_R]), np.concatenate([self._numbers_N, numbers_R]))

    def _put(self, keys_N: NDArray[np.uint64], numbers_N: NDArray[np.int64]) -> None:
        self._keys_N, first = np.unique(keys_N, return_index=True)
        self._numbers_N = numbers_N[first]
