import io
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferserve.faces.arrays import MAGIC, pack_array, unpack_array
from ferserve.faces.errors import InvalidRequestError

CROPS = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3, 1)


@pytest.mark.parametrize("array", [CROPS, CROPS[:, ::-1], CROPS[:0], np.asfortranarray(CROPS)])
def test_what_is_packed_is_unpacked(array):
    np.testing.assert_array_equal(unpack_array(pack_array(array), dtype=np.uint8), array)


def test_numpy_reads_and_writes_the_same():
    assert pack_array(CROPS).startswith(MAGIC)
    np.testing.assert_array_equal(np.load(io.BytesIO(pack_array(CROPS)), allow_pickle=False), CROPS)
    buffer = io.BytesIO()
    np.save(buffer, CROPS)
    np.testing.assert_array_equal(unpack_array(bytearray(buffer.getvalue()), dtype=np.uint8), CROPS)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "expected a .npy file, got 0 other bytes"),
        (b"\xff\xd8\xff\xe0 a picture", "expected a .npy file, got 14 other bytes"),
        (pack_array(CROPS)[:-1], "expected 18 bytes behind the header for shape \\(2, 3, 3, 1\\), got 17"),
        (pack_array(CROPS) + b"x", "expected 18 bytes behind the header .* got 19"),
        (pack_array(CROPS.astype(np.float32)), "expected uint8 in rows, got float32 of shape"),
        (MAGIC + b"\x02\x00" + pack_array(CROPS)[8:], "expected a .npy file"),
        (pack_array(CROPS).replace(b"(2, 3, 3, 1)", b"(-2,3, 3,-1)"), "got uint8 of shape"),
        (pack_array(CROPS).replace(b"'fortran_order': False", b"'fortran_order': True "), "in columns"),
        (pack_array(CROPS).replace(b"|u1", b"|O8"), "expected uint8"),
    ],
)
def test_anything_else_is_refused_with_what_was_expected(data, message):
    with pytest.raises(InvalidRequestError, match=message):
        unpack_array(data, dtype=np.uint8)


@given(st.binary(max_size=200), st.integers(0, 120))
def test_damaged_headers_never_raise_anything_else(noise, place):
    data = pack_array(CROPS)
    for damaged in (data[:place] + noise + data[place + len(noise) :], MAGIC + b"\x01\x00" + noise):
        with suppress(InvalidRequestError):
            unpack_array(damaged, dtype=np.uint8)
