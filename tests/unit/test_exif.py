import struct

import pytest
from PIL import Image as PillowImage

from ferserve.faces.exif import MAX_SEGMENTS, orientation, read_jpeg_head


def _block(value, *, order="<", kind=3, tag=0x0112):
    marks = {"<": b"II*\x00", ">": b"MM\x00*"}[order]
    entry = struct.pack(order + "HHI", tag, kind, 1) + struct.pack(order + "HH", value, 0)
    return marks + struct.pack(order + "IH", 8, 1) + entry


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("prefix", [b"", b"Exif\x00\x00"])
@pytest.mark.parametrize("value", range(1, 9))
def test_both_byte_orders_are_read(order, prefix, value):
    assert orientation(prefix + _block(value, order=order)) == value


def test_what_pillow_writes_is_read():
    exif = PillowImage.Exif()
    exif[0x010F], exif[0x0112], exif[0x9003] = "maker", 6, "2001:01:01 00:00:00"
    assert orientation(exif.tobytes()) == 6


@pytest.mark.parametrize(
    "exif",
    [
        b"",
        b"Exif\x00\x00",
        b"II*\x00",
        b"II*\x00\xff\xff\xff\xff",
        _block(0),
        _block(9),
        _block(6, kind=2),
        _block(6, tag=0x0110),
        _block(6)[:-3],
        b"XX" + _block(6)[2:],
    ],
)
def test_absent_damaged_and_meaningless_exif_turns_nothing(exif):
    assert orientation(exif) == 1


def _segment(marker, body):
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def test_the_first_exif_block_before_the_pixels_counts():
    first, second = b"Exif\x00\x00" + _block(3), b"Exif\x00\x00" + _block(8)
    other = _segment(0xE1, b"http://ns.adobe.com/xap/1.0/\x00")
    pixels = _segment(0xDA, b"") + b"\x00" * 9
    data = b"\xff\xd8" + other + b"\xff\xff" + _segment(0xE1, first) + b"zz" + _segment(0xE1, second) + pixels
    assert orientation(read_jpeg_head(data).exif) == 3
    assert read_jpeg_head(b"\xff\xd8" + pixels + _segment(0xE1, first)).exif == b""


def test_progressive_frames_are_told_from_others():
    assert read_jpeg_head(b"\xff\xd8" + _segment(0xC2, b"frame")).progressive
    assert not read_jpeg_head(b"\xff\xd8" + _segment(0xC0, b"frame")).progressive


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xd8", b"\xff\xd8\xff", b"\xff\xd8\xff\xe1\xff", b"\xff\xd8" + b"\xff" * 99]
)
def test_hollow_heads_are_empty(data):
    assert read_jpeg_head(data).exif == b""


def test_endless_segments_end_the_walk():
    late = b"\xff\xd8" + _segment(0xFE, b"") * MAX_SEGMENTS + _segment(0xE1, b"Exif\x00\x00" + _block(3))
    assert read_jpeg_head(late).exif == b""
