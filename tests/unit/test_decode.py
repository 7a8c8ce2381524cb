import io
import struct
import zlib

import cv2
import numpy as np
import pytest
import skimage.data
from PIL import Image as PillowImage
from PIL import ImageOps

from ferserve.faces.decode import DecodeLimits, decode
from ferserve.faces.errors import ImageTooLargeError, InvalidImageError, UnsupportedMediaError

LIMITS = DecodeLimits()


@pytest.fixture(scope="module")
def photo():
    return np.ascontiguousarray(skimage.data.astronaut()[:300, :400])


def _encode(pixels, kind, mode="RGB", **options):
    buffer = io.BytesIO()
    PillowImage.fromarray(pixels).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def _png_of(width, height):
    """A PNG whose header announces any size, with no pixels behind it."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_lossless_formats_come_back_exactly(photo, kind):
    image = decode(_encode(photo, kind), LIMITS)
    assert np.array_equal(image.pixels, photo)
    assert (image.width_px, image.height_px, image.scale, image.format) == (400, 300, 1.0, kind)
    assert image.pixels.flags.c_contiguous


@pytest.mark.parametrize(
    ("kind", "mode", "tolerance"),
    [("JPEG", "RGB", 5), ("JPEG", "CMYK", 5), ("WEBP", "RGB", 5), ("GIF", "P", 16), ("PNG", "P", 16)],
)
def test_lossy_formats_come_close(photo, kind, mode, tolerance):
    image = decode(_encode(photo, kind, mode), LIMITS)
    assert np.abs(image.pixels.astype(int) - photo).mean() < tolerance


def test_grey_becomes_three_equal_channels(photo):
    for kind in ("JPEG", "PNG"):
        pixels = decode(_encode(photo, kind, "L"), LIMITS).pixels
        assert np.array_equal(pixels[..., 0], pixels[..., 2])


def test_sixteen_bits_keep_their_high_byte(photo):
    wide = photo.astype(np.uint16) * 256 + 255
    for extension in (".png", ".tiff"):
        colour = cv2.imencode(extension, np.ascontiguousarray(wide[:, :, ::-1]))[1].tobytes()
        assert np.array_equal(decode(colour, LIMITS).pixels, photo)
        grey = cv2.imencode(extension, np.ascontiguousarray(wide[:, :, 0]))[1].tobytes()
        assert np.array_equal(decode(grey, LIMITS).pixels[:, :, 1], photo[:, :, 0])


def test_transparency_turns_white():
    clear = np.zeros((4, 4, 4), np.uint8)
    clear[0, 0] = (10, 20, 30, 255)
    buffer = io.BytesIO()
    PillowImage.fromarray(clear).save(buffer, "PNG")
    pixels = decode(buffer.getvalue(), LIMITS).pixels
    assert pixels[0, 0].tolist() == [10, 20, 30]
    assert (pixels[1:] == 255).all()


def test_the_first_frame_of_an_animation_counts():
    frames = [PillowImage.fromarray(np.full((8, 8, 3), value, np.uint8)) for value in (200, 10)]
    for kind in ("GIF", "WEBP", "PNG", "TIFF"):
        buffer = io.BytesIO()
        frames[0].save(buffer, kind, save_all=True, append_images=frames[1:])
        assert decode(buffer.getvalue(), LIMITS).pixels.mean() > 190


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(photo, orientation):
    exif = PillowImage.Exif()
    exif[0x0112] = orientation
    data = _encode(photo, "PNG", exif=exif)
    image = decode(data, LIMITS)
    upright = np.asarray(ImageOps.exif_transpose(PillowImage.open(io.BytesIO(data))))
    assert np.array_equal(image.pixels, upright)
    assert (image.height_px, image.width_px) == upright.shape[:2]


def test_a_wrong_orientation_turns_nothing(photo):
    for value in (0, 9, 300):
        exif = PillowImage.Exif()
        exif[0x0112] = value
        assert np.array_equal(decode(_encode(photo, "PNG", exif=exif), LIMITS).pixels, photo)


def test_a_large_jpeg_is_decoded_smaller_but_not_too_small(photo):
    large = cv2.resize(photo, (3200, 2400))
    data = _encode(large, "JPEG")
    image = decode(data, LIMITS, min_side_px=1000)
    assert 1000 <= max(image.pixels.shape) <= 1600
    assert (image.width_px, image.height_px) == (3200, 2400)
    assert image.scale == pytest.approx(image.pixels.shape[0] / 2400)
    assert decode(data, LIMITS).scale == 1.0
    assert decode(data, LIMITS, min_side_px=4000).scale == 1.0


def test_limits_hold_before_anything_is_allocated():
    with pytest.raises(ImageTooLargeError, match="expected at most 10 bytes, got 11"):
        decode(b"\x89PNG" + bytes(7), DecodeLimits(max_image_bytes=10))
    with pytest.raises(ImageTooLargeError, match="expected at most 64000000 pixels, got 9000 x 9000"):
        decode(_png_of(9000, 9000), LIMITS)
    with pytest.raises(ImageTooLargeError):
        decode(_png_of(20000, 20000), LIMITS)
    with pytest.raises(ValueError, match="max_image_pixels must be at least 1, got 0"):
        DecodeLimits(max_image_pixels=0)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_truncated_pictures_are_invalid(photo, kind, share):
    data = _encode(photo, kind)
    with pytest.raises(InvalidImageError):
        decode(data[: int(len(data) * share)], LIMITS)


@pytest.mark.parametrize(
    "data", [b"%PDF-1.7", b"hello", b"<svg/>", b"\x00\x00\x00\x18ftypheic", b"GIF", b"\x1a\x45\xdf\xa3"]
)
def test_other_media_are_unsupported(data):
    with pytest.raises(UnsupportedMediaError, match="expected JPEG, PNG, WebP, BMP, TIFF or GIF"):
        decode(data, LIMITS)


@pytest.mark.parametrize("data", [b"", b"\xff\xd8\xff\xd9", b"RIFF\x00\x00\x00\x00WEBP", b"BM", _png_of(0, 5)])
def test_empty_and_hollow_pictures_are_invalid(data):
    with pytest.raises(InvalidImageError):
        decode(data, LIMITS)


def test_harmless_bytes_between_segments_are_forgiven(photo):
    data = _encode(photo, "JPEG")
    scan = data.index(b"\xff\xda")
    image = decode(data[:scan] + b"zz" + data[scan:], LIMITS)
    assert np.abs(image.pixels.astype(int) - photo).mean() < 5
    assert decode(data + b"a phone's trailer", LIMITS).format == "JPEG"


def test_one_pixel_is_a_picture():
    assert decode(_encode(np.full((1, 1, 3), 9, np.uint8), "PNG"), LIMITS).pixels.tolist() == [[[9, 9, 9]]]
