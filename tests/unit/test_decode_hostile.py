"""Files that mean harm, or that are odd but whole."""

import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image as PillowImage
from PIL import TiffImagePlugin

from ferserve.faces.decode import MAX_JPEG_SCANS, MAX_PILLOW_PIXELS, DecodeLimits, decode
from ferserve.faces.errors import ImageTooLargeError, InvalidImageError, UnsupportedMediaError
from ferserve.faces.media import announced_size, media_kind

LIMITS = DecodeLimits()
ORIENTATION = 0x0112
ROWS, COLUMNS = np.mgrid[0:60, 0:80]
PIXELS = np.stack([ROWS * 4, COLUMNS * 3, ROWS + COLUMNS], axis=2).astype(np.uint8)


def _encode(pixels, kind, **options):
    buffer = io.BytesIO()
    PillowImage.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def _oriented(value):
    exif = PillowImage.Exif()
    exif[ORIENTATION] = value
    return exif


def _gif(screen, frame):
    """The head of a GIF whose first frame asks for its own place to be cleared afterwards."""
    control = b"!\xf9\x04" + bytes([2 << 2, 0, 0, 0]) + b"\x00"
    descriptor = b"," + struct.pack("<HHHHB", *frame, 0)
    return b"GIF89a" + struct.pack("<HHBBB", *screen, 0, 0, 0) + b"!\xfe\x05words\x00" + control + descriptor + b"\x02"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "TIFF", "WEBP"])
def test_every_format_comes_upright_once(kind, orientation):
    options = {"lossless": True} if kind == "WEBP" else {"quality": 95, "subsampling": 0} if kind == "JPEG" else {}
    plain = decode(_encode(PIXELS, kind, **options), LIMITS).pixels
    turned = decode(_encode(PIXELS, kind, exif=_oriented(orientation), **options), LIMITS)
    expected = {
        1: plain,
        2: plain[:, ::-1],
        3: plain[::-1, ::-1],
        4: plain[::-1],
        5: plain.transpose(1, 0, 2),
        6: np.rot90(plain, -1),
        7: np.rot90(plain, 2).transpose(1, 0, 2),
        8: np.rot90(plain, 1),
    }[orientation]
    assert np.array_equal(turned.pixels, expected)
    assert (turned.height_px, turned.width_px) == expected.shape[:2]
    assert turned.pixels.flags.c_contiguous


def test_a_turned_jpeg_may_be_smaller_too():
    data = _encode(np.repeat(np.repeat(PIXELS, 20, axis=0), 20, axis=1), "JPEG", exif=_oriented(6))
    image = decode(data, LIMITS, min_side_px=400)
    assert (image.width_px, image.height_px) == (1200, 1600)
    assert image.pixels.shape == (400, 300, 3)
    assert image.scale == 0.25


def test_a_narrow_jpegs_scale_is_its_longer_sides():
    image = decode(_encode(np.zeros((9, 4000, 3), np.uint8), "JPEG"), LIMITS, min_side_px=500)
    assert image.pixels.shape[1] == 500
    assert image.scale == 0.125


def test_frames_are_measured_before_a_decoder_takes_memory_for_them():
    gif = _gif((1, 1), (5, 7, 30_000, 30_000))
    assert announced_size("GIF", gif) == (30_005, 30_007)
    webp = bytearray(_encode(PIXELS, "WEBP", exif=_oriented(1)))
    assert webp[12:16] == b"VP8X"
    webp[24:30] = (16_000 - 1).to_bytes(3, "little") * 2
    for data in (gif, bytes(webp)):
        with pytest.raises(ImageTooLargeError, match=r"expected at most 64000000 pixels, got (30005|16000) x"):
            decode(data, LIMITS)


@pytest.mark.parametrize("options", [{}, {"lossless": True}, {"exif": b"Exif\x00\x00"}])
def test_every_kind_of_webp_announces_its_size(options):
    assert announced_size("WEBP", _encode(PIXELS, "WEBP", **options)) == (80, 60)


def test_a_gif_announces_its_size():
    assert announced_size("GIF", _encode(PIXELS, "GIF")) == (80, 60)
    for hollow in (_gif((4, 4), (0, 0, 4, 4))[:-8], b"GIF89a" + bytes(7) + b";"):
        with pytest.raises(InvalidImageError, match="expected a GIF with a frame"):
            decode(hollow, LIMITS)


@pytest.mark.parametrize(("tile_px", "refused"), [(16, False), (32_000, True)])
def test_a_small_tiff_with_huge_tiles_is_refused(tile_px, refused):
    tile = zlib.compress(bytes([77]) * 256)
    tags = {256: 16, 257: 16, 258: 8, 259: 8, 262: 1, 277: 1, 322: tile_px, 323: tile_px, 324: 200, 325: len(tile)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    data = (b"II*\x00" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)).ljust(200, b"\x00") + tile
    if refused:
        with pytest.raises(ImageTooLargeError, match="expected tiles of at most"):
            decode(data, LIMITS)
    else:
        assert (decode(data, LIMITS).pixels == 77).all()


def test_a_progressive_jpeg_of_endless_scans_is_refused():
    data = _encode(PIXELS, "JPEG", progressive=True)
    assert decode(data, LIMITS).pixels.shape == PIXELS.shape
    last = data.rindex(b"\xff\xda")
    with pytest.raises(InvalidImageError, match=f"at most {MAX_JPEG_SCANS} scans"):
        decode(data[:last] + data[last:-2] * MAX_JPEG_SCANS + data[-2:], LIMITS)


def test_a_second_header_hides_no_large_picture():
    data = bytearray(_encode(PIXELS, "JPEG"))
    frame = data.index(b"\xff\xc0")
    small = data[frame : frame + 19]
    data[frame + 5 : frame + 9] = struct.pack(">HH", 9000, 9000)
    for hostile in (data, data[: frame + 19] + small + data[frame + 19 :], data[:frame] + small + data[frame:]):
        with pytest.raises((ImageTooLargeError, InvalidImageError)):
            decode(bytes(hostile), LIMITS)


@pytest.mark.parametrize(
    ("find", "put"),
    [(b"JFIF\x00\x01\x01", b"JFIF\x00\x07\x01"), (b"ICC_PROFILE\x00\x01\x01", b"ICC_PROFILE\x00\x05\x01")],
)
def test_odd_but_whole_jpegs_are_read(find, put):
    data = _encode(PIXELS, "JPEG", icc_profile=b"profile")
    assert find in data
    assert np.array_equal(decode(data.replace(find, put), LIMITS).pixels, decode(data, LIMITS).pixels)


def test_a_jpeg_with_an_end_in_its_middle_is_refused():
    data = bytearray(_encode(np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8), "JPEG"))
    middle = len(data) // 2
    data[middle : middle + 2] = b"\xff\xd9"
    with pytest.raises(InvalidImageError, match="expected a whole JPEG picture, got a truncated or damaged one"):
        decode(bytes(data), LIMITS)


def test_damaged_exif_turns_nothing():
    exif = b"Exif\x00\x00II*\x00\x08\x00\x00\x00\xff\xff" + b"\x12\x01\x03\x00" + b"\xff" * 9
    data = _encode(PIXELS, "JPEG", exif=exif)
    assert np.array_equal(decode(data, LIMITS).pixels, decode(_encode(PIXELS, "JPEG"), LIMITS).pixels)


def test_pixels_without_an_agreed_range_are_unsupported():
    for mode in ("F", "I"):
        buffer = io.BytesIO()
        PillowImage.new(mode, (4, 4)).save(buffer, "TIFF")
        with pytest.raises(UnsupportedMediaError, match=f"got mode {mode}"):
            decode(buffer.getvalue(), LIMITS)


def test_pixels_that_name_colours_of_no_palette_are_refused():
    data = _encode(np.zeros((6, 4), np.uint8), "PNG")
    head = bytearray(data[12:29])
    head[13] = 3  # the colours' type: places in a palette
    data = data[:12] + bytes(head) + struct.pack(">I", zlib.crc32(head)) + data[33:]
    with pytest.raises(InvalidImageError, match="expected a palette"):
        decode(data, LIMITS)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "I;16"])
def test_every_mode_of_tiff_or_png_becomes_rgb(mode):
    source = PillowImage.new(mode, (5, 3))
    buffer = io.BytesIO()
    source.save(buffer, "TIFF" if mode in ("CMYK", "YCbCr") else "PNG")
    image = decode(buffer.getvalue(), LIMITS)
    assert image.pixels.shape == (3, 5, 3)
    assert image.pixels.dtype == np.uint8


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"%PDF-1.7", "PDF"),
        (b"\x00\x00\x00\x18ftypheic", "HEIC"),
        (b"\x00\x00\x00\x18ftypisom", "MP4 or its like"),
        (b"  <svg/>", "SVG"),
        (b"RIFF\x10\x00\x00\x00WAVEfmt ", "RIFF, but no WebP"),
        (b"hello", "text"),
        (b"\x00\x01\x02", "an unknown format"),
    ],
)
def test_other_media_are_named(data, name):
    with pytest.raises(UnsupportedMediaError, match=f"got {name}$"):
        media_kind(data)


def test_what_pillow_decodes_ends_at_its_own_guard():
    wide = DecodeLimits(max_image_pixels=10**9)
    png = bytearray(_encode(PIXELS, "PNG"))
    png[16:24] = struct.pack(">II", 10_000, 10_000)
    png[29:33] = struct.pack(">I", zlib.crc32(png[12:29]))
    with pytest.raises(ImageTooLargeError, match=f"expected at most {MAX_PILLOW_PIXELS} pixels, got 10000 x 10000"):
        decode(bytes(png), wide)


def test_nothing_that_pillow_grumbles_about_reaches_standard_error():
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[305] = "words that are too long to fit into an entry"
    tiff = bytearray(_encode(PIXELS, "TIFF", tiffinfo=tags))
    entry = tiff.index(struct.pack("<HH", 305, 2))
    tiff[entry + 8 : entry + 12] = struct.pack("<I", len(tiff) - 4)
    script = (
        "import sys; from ferserve.faces.decode import *\n"
        "print(decode(sys.stdin.buffer.read(), DecodeLimits()).pixels.shape)"
    )
    done = subprocess.run([sys.executable, "-c", script], input=bytes(tiff), capture_output=True, check=True)
    assert done.stdout.split() == [b"(60,", b"80,", b"3)"]
    assert done.stderr == b""
    loud = subprocess.run(
        [
            sys.executable,
            "-c",
            "import io, sys; from PIL import Image\nImage.open(io.BytesIO(sys.stdin.buffer.read()))",
        ],
        input=bytes(tiff),
        capture_output=True,
        check=True,
    )
    assert b"Warning" in loud.stderr  # the file does make Pillow warn


def test_an_odd_tiff_writes_nothing_past_the_log(capfd):
    """libtiff itself would write a line for each oddity."""
    whole = _encode(PIXELS, "TIFF", compression="tiff_lzw")
    refused = 0
    for place in range(8, len(whole), 7):
        odd = bytearray(whole)
        odd[place] ^= 0xFF
        try:
            decode(bytes(odd), LIMITS)
        except (InvalidImageError, UnsupportedMediaError, ImageTooLargeError):
            refused += 1
    assert refused > 10
    assert capfd.readouterr().err == ""
