"""Arrays as bytes: NumPy's own `.npy`, version 1.0, which any client can write and which never holds a pickle here."""

import io
import math
from typing import Any, Final

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ferserve.faces.errors import InvalidRequestError

MAGIC: Final = b"\x93NUMPY"
"""How a packed array begins; no picture does."""
_MAX_HEADER_BYTES: Final = 4096
"""The header of an array of four axes takes 128."""


def pack_array(array: NDArray[Any]) -> bytes:
    """An array as a `.npy` file in memory."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def unpack_array(data: bytes | bytearray, *, dtype: DTypeLike) -> NDArray[Any]:
    """Read a `.npy` file without copying its numbers.

    Args:
        data: exactly one array in C order; the result shares its memory.
        dtype: what its numbers must be.
    Raises:
        InvalidRequestError: no such file, another type, or more or fewer numbers than it says.
    """
    expected = np.dtype(dtype)
    head = io.BytesIO(data[: len(MAGIC) + 4 + _MAX_HEADER_BYTES])
    try:
        version = np.lib.format.read_magic(head)
        shape, in_columns, got = np.lib.format.read_array_header_1_0(head, max_header_size=_MAX_HEADER_BYTES)
    except Exception as error:  # NumPy lets through whatever its tokenizer and its parser of literals raise
        raise InvalidRequestError(f"expected a .npy file, got {len(data)} other bytes") from error
    if version != (1, 0):
        raise InvalidRequestError(f"expected a .npy file of version 1.0, got {version[0]}.{version[1]}")
    if got != expected or in_columns or min(shape, default=0) < 0:
        order = ", in columns" if in_columns else ""
        raise InvalidRequestError(f"expected {expected} in rows, got {got} of shape {shape}{order}")
    size_bytes = math.prod(shape) * expected.itemsize
    if len(data) - head.tell() != size_bytes:
        raise InvalidRequestError(
            f"expected {size_bytes} bytes behind the header for shape {shape}, got {len(data) - head.tell()}"
        )
    return np.frombuffer(data, expected, offset=head.tell()).reshape(shape)
