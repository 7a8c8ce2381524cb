"""Files that never were a picture that ferserve reads, and pictures of almost nothing."""

import gzip
import io
import json
import struct
import zipfile
from random import Random

from PIL import Image
from tests.damaged.expected import OF_THE_PICTURE, Decodes, Expected
from tests.damaged.inputs import Damaged, Picture
from tests.damaged.pictures import any_whole, encode, face

_MAGICS = (b"\xff\xd8", b"BM", b"GIF8", b"II", b"MM", b"RIFF", b"\x89PNG")


def wrong_type(rng: Random, index: int) -> Damaged:
    """Another type of file."""
    files = _files(rng)
    what = list(files)[index % len(files)]
    return Damaged(
        kind="wrong type",
        index=index,
        what=what,
        make=lambda: Picture(data=files[what]),
        expected=Expected(reasons=frozenset({"UNSUPPORTED_MEDIA"})),
    )


def hollow(rng: Random, index: int) -> Damaged:
    """Nothing at all, or the first bytes of a format and nothing that belongs to it."""
    starts = {
        "nothing": b"",
        "jpeg": b"\xff\xd8",
        "jpeg and its end": b"\xff\xd8\xff\xd9",
        "png": b"\x89PNG\r\n\x1a\n",
        "webp": b"RIFF\x20\x00\x00\x00WEBPVP8 ",
        "bmp": b"BM",
        "gif": b"GIF89a",
        "tiff": b"II*\x00\x08\x00\x00\x00",
        "big tiff": b"MM\x00+\x00\x08\x00\x00",
        "text like a bmp": b"BMW is a maker of cars. ",
    }
    what = list(starts)[index % len(starts)]
    padding = (b"", bytes(rng.randrange(1, 3000)), rng.randbytes(rng.randrange(1, 3000)))[index // len(starts) % 3]
    data = b"" if what == "nothing" else starts[what] + padding
    return Damaged(
        kind="hollow",
        index=index,
        what=f"{what} and {len(data) - len(starts[what])} bytes",
        make=lambda: Picture(data=data),
        expected=Expected(reasons=OF_THE_PICTURE),
    )


def one_pixel(rng: Random, index: int) -> Damaged:
    """The smallest picture there is, in every format and mode."""
    forms = [
        *(("JPEG", mode) for mode in ("L", "RGB", "CMYK")),
        *(("PNG", mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")),
        *(("WEBP", mode) for mode in ("RGB", "RGBA")),
        *(("BMP", mode) for mode in ("1", "L", "P", "RGB", "RGBA")),
        *(("TIFF", mode) for mode in ("1", "L", "RGB", "RGBA", "CMYK", "I;16")),
        *(("GIF", mode) for mode in ("1", "L", "P")),
    ]
    kind, mode = forms[index % len(forms)]
    grey = rng.randrange(256)
    return Damaged(
        kind="one pixel",
        index=index,
        what=f"{kind} of mode {mode}",
        make=lambda: Picture(data=encode(Image.new("L", (1, 1), grey).convert(mode), kind)),
        expected=Expected(decodes=Decodes.ALWAYS),
    )


def extreme_aspect(rng: Random, index: int) -> Damaged:
    """Pictures of a few pixels one way and many the other."""
    long_px = rng.choice((1000, 4000, 16_000, 30_000, 60_000))
    short_px = rng.choice((1, 2, 3, 7, 16))
    kind = rng.choice(("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"))
    long_px = min(long_px, 16_000) if kind == "WEBP" else long_px
    size = (long_px, short_px) if index % 2 else (short_px, long_px)
    return Damaged(
        kind="extreme aspect",
        index=index,
        what=f"{kind} of {size[0]} x {size[1]}",
        make=lambda: Picture(data=encode(face(64).resize(size), kind)),
        expected=Expected(decodes=Decodes.ALWAYS),
    )


def _files(rng: Random) -> dict[str, bytes]:
    name, picture = any_whole(rng)
    noise = rng.randbytes(rng.randrange(200, 3000))
    return {
        "pdf": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n" + noise,
        "mp4": b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isomiso2" + noise,
        "mp4 of another brand": b"\x00\x00\x00\x1cftypmp42" + noise,
        "heic": b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + noise,
        "avif": b"\x00\x00\x00\x1cftypavif\x00\x00\x00\x00avifmif1" + noise,
        "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><rect width="9" height="9"/></svg>',
        "svg with a prologue": b'<?xml version="1.0"?>\n<!DOCTYPE svg>\n<svg width="1e9" height="1e9"/>',
        "svg with entities": b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><svg>&x;</svg>',
        "html": b"<!DOCTYPE html><html><body>no picture</body></html>",
        "text": b"There is no picture here, only words.\n" * rng.randrange(1, 40),
        "text beyond ascii": ("\ufeffKein Bild, nur Wörter. " * 20).encode(),
        "json": json.dumps({"image": noise.hex()}).encode(),
        f"gzip of a {name}": gzip.compress(picture, mtime=0),
        f"zip of a {name}": _zip(picture),
        "xz": b"\xfd7zXZ\x00" + noise,
        "wav": b"RIFF" + struct.pack("<I", len(noise)) + b"WAVEfmt " + noise,
        "avi": b"RIFF" + struct.pack("<I", len(noise)) + b"AVI LIST" + noise,
        "mp3": b"ID3\x04\x00\x00" + noise,
        "webm": b"\x1aE\xdf\xa3" + noise,
        "psd": b"8BPS\x00\x01" + noise,
        "ico": b"\x00\x00\x01\x00\x01\x00" + noise,
        "ppm": b"P6\n20000 20000\n255\n" + noise,
        "qoi": b"qoif" + struct.pack(">II", 20_000, 20_000) + noise,
        "jpeg xl": b"\xff\x0a" + noise,
        "jpeg 2000": b"\x00\x00\x00\x0cjP  \r\n\x87\n" + noise,
        "elf": b"\x7fELF\x02\x01\x01" + noise,
        "pickle": b"\x80\x05\x95" + noise,
        "zeros": bytes(len(noise)),
        "ones": b"\xff" * len(noise),
        "noise": _unknown(rng),
        "a base64 picture": picture.hex().encode(),
        f"a byte before a {name}": b"\x00" + picture,
    }


def _zip(data: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(zipfile.ZipInfo("picture"), data)
    return buffer.getvalue()


def _unknown(rng: Random) -> bytes:
    """Noise that by no accident begins like a picture."""
    while True:
        noise = rng.randbytes(rng.randrange(1, 5000))
        if not noise.startswith(_MAGICS):
            return noise
