import io
import warnings

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PillowImage

from ferserve.faces.decode import DecodeLimits, decode
from ferserve.faces.errors import RequestError

LIMITS = DecodeLimits(max_image_bytes=100_000, max_image_pixels=200_000)


def _sources():
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    for kind in ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"):
        buffer = io.BytesIO()
        PillowImage.fromarray(pixels).save(buffer, kind)
        yield buffer.getvalue()


SOURCES = list(_sources())
PREFIXES = [source[:12] for source in SOURCES]


def _decode_or_refuse(data):
    with warnings.catch_warnings():
        # What Pillow grumbles about is not the test's matter: it must not raise anything else.
        warnings.simplefilter("ignore")
        try:
            image = decode(data, LIMITS)
        except RequestError:
            return
    assert image.pixels.dtype == np.uint8
    assert image.pixels.ndim == 3
    assert 0 < image.pixels.size <= 3 * LIMITS.max_image_pixels


@given(st.sampled_from([b"", *PREFIXES]), st.binary(max_size=300))
@settings(max_examples=150, deadline=None)
def test_any_bytes_decode_or_are_refused(prefix, tail):
    _decode_or_refuse(prefix + tail)


@given(
    st.sampled_from(SOURCES),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=8),
    st.floats(0, 1),
)
@settings(max_examples=250, deadline=None)
def test_damaged_pictures_decode_or_are_refused(source, changes, keep):
    data = bytearray(source)
    for position, value in changes:
        data[int(position * len(data))] = value
    _decode_or_refuse(bytes(data))
    _decode_or_refuse(bytes(data[: int(keep * len(data))]))


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1), st.integers(1, 8))
@settings(max_examples=60, deadline=None)
def test_turning_there_and_back_changes_nothing(height, width, seed, orientation):
    back = {6: 8, 8: 6}.get(orientation, orientation)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    turned = pixels
    for value in (orientation, back):
        exif = PillowImage.Exif()
        exif[0x0112] = value
        buffer = io.BytesIO()
        PillowImage.fromarray(turned).save(buffer, "PNG", exif=exif)
        turned = decode(buffer.getvalue(), LIMITS).pixels
    assert np.array_equal(turned, pixels)
