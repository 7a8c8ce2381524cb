"""From bytes to RGB pixels, upright; every limit holds before a pixel exists (see docs/adr/0002-decoders.md)."""

import io
from dataclasses import dataclass
from typing import Final

import numpy as np
import simplejpeg
from PIL import (  # a plug-in registers its format by being imported; no other format is ever looked at
    BmpImagePlugin,  # noqa: F401
    GifImagePlugin,  # noqa: F401
    JpegImagePlugin,  # noqa: F401
    PngImagePlugin,  # noqa: F401
    TiffImagePlugin,  # noqa: F401
    UnidentifiedImageError,
    WebPImagePlugin,  # noqa: F401
)
from PIL import Image as PillowImage

from ferserve.faces.errors import ImageTooLargeError, InvalidImageError, UnsupportedMediaError
from ferserve.faces.types import Image

FORMATS: Final = ("JPEG", "PNG", "WEBP", "BMP", "DIB", "TIFF", "GIF")
"""Pillow's names of what is read."""
FORMATS_TEXT: Final = "JPEG, PNG, WebP, BMP, TIFF or GIF"
_MAGIC: Final = (b"\xff\xd8", b"\x89PNG", b"RIFF", b"BM", b"II*\x00", b"MM\x00*", b"GIF8")
"""How the formats above begin; anything else is another kind of file."""
_UPSIDE: Final = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a.swapaxes(0, 1)[:, ::-1],
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a.swapaxes(0, 1)[::-1],
}
"""What undoes each EXIF orientation but 1, on arrays (H, W, 3)."""
_ORIENTATION_TAG: Final = 0x0112


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeLimits:
    """What is refused before it costs anything.

    Attributes:
        max_image_bytes: of the encoded picture.
        max_image_pixels: width times height that the header announces.
    """

    max_image_bytes: int = 20 * 2**20
    max_image_pixels: int = 64_000_000

    def __post_init__(self) -> None:
        for name in ("max_image_bytes", "max_image_pixels"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DecodedImage:
    """A picture ready for detection.

    Attributes:
        pixels: RGB uint8, shape (H, W, 3), upright, contiguous.
        scale: H over the original's height: 1, or less where a JPEG was decoded at a reduced scale.
        width_px, height_px: of the original after its EXIF rotation.
        format: `JPEG`, `PNG`, `WEBP`, `BMP`, `TIFF` or `GIF`.
    """

    pixels: Image
    scale: float
    width_px: int
    height_px: int
    format: str


def decode(data: bytes, limits: DecodeLimits, *, min_side_px: int | None = None) -> DecodedImage:
    """Decode one picture; of an animation the first frame.

    Sixteen bits become eight by their high byte, palettes and CMYK become RGB, and what is transparent turns white,
    as a page would show it.

    Args:
        data: an encoded picture.
        min_side_px: a JPEG may be decoded smaller, as long as its longer side keeps this many pixels; None keeps all.
    Raises:
        ImageTooLargeError: over a limit, by the length of `data` or by what the header announces.
        UnsupportedMediaError: not one of the formats.
        InvalidImageError: one of the formats, but undecodable, truncated or of zero size.
    """
    if len(data) > limits.max_image_bytes:
        raise ImageTooLargeError(f"expected at most {limits.max_image_bytes} bytes, got {len(data)}")
    if not data:
        raise InvalidImageError("expected an encoded picture, got 0 bytes")
    with _opened(data) as picture:
        width, height = picture.size
        _check_pixels(width, height, limits)
        orientation = _orientation(picture)
        # An MPO is a JPEG with further pictures behind it, as some phones write.
        kind = {"MPO": "JPEG", "DIB": "BMP"}.get(picture.format or "", picture.format or "")
        pixels = _jpeg(data, (width, height), min_side_px) if kind == "JPEG" and picture.mode in ("RGB", "L") else None
        if pixels is None:
            pixels = _by_pillow(picture)
    if not pixels.size:
        raise InvalidImageError(f"expected at least 1 x 1 pixel, got {width} x {height}")
    scale = pixels.shape[0] / height
    if orientation in _UPSIDE:
        pixels = _UPSIDE[orientation](pixels)
    if orientation >= 5:  # these four swap the axes
        width, height = height, width
    return DecodedImage(pixels=np.ascontiguousarray(pixels), scale=scale, width_px=width, height_px=height, format=kind)


def _check_pixels(width: int, height: int, limits: DecodeLimits) -> None:
    if width < 1 or height < 1:
        raise InvalidImageError(f"expected at least 1 x 1 pixel, got {width} x {height}")
    if width * height > limits.max_image_pixels:
        raise ImageTooLargeError(f"expected at most {limits.max_image_pixels} pixels, got {width} x {height}")


def _orientation(picture: PillowImage.Image) -> int:
    """The EXIF orientation, 1 to 8; damaged EXIF turns nothing and fails nothing."""
    try:
        value = picture.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # noqa: BLE001 -- as in _opened; the picture itself may still be whole
        return 1
    return value if isinstance(value, int) else 1


def _jpeg(data: bytes, size: tuple[int, int], min_side_px: int | None) -> Image | None:
    """A plain JPEG by libjpeg-turbo, at a reduced scale if that keeps `min_side_px`; None leaves it to Pillow.

    Raises:
        InvalidImageError: truncated or damaged.
    """
    wanted = [0, 0] if min_side_px is None else [min_side_px * side // max(size) for side in size]
    try:
        pixels = simplejpeg.decode_jpeg(
            data,
            colorspace="RGB",
            min_width=wanted[0],
            min_height=wanted[1],
            # Between full and half size the decoder is slower than at full.
            min_factor=1 if min_side_px is None else 2,
        )
    except ValueError as error:
        text = str(error)
        if "extraneous bytes" in text or "colorspace" in text.lower():
            return None  # a whole picture with something harmless or rare in it
        raise InvalidImageError("the JPEG is truncated or damaged") from error
    return np.asarray(pixels, dtype=np.uint8)


def _by_pillow(picture: PillowImage.Image) -> Image:
    """The first frame as RGB by Pillow, whose decoders raise where a file is broken.

    Raises:
        InvalidImageError: truncated or damaged.
    """
    try:
        picture.load()
        return np.asarray(_to_rgb(picture), dtype=np.uint8)
    except Exception as error:  # as in _opened; MemoryError too: a lying header is no fault of the server
        raise InvalidImageError(f"the {picture.format} picture is truncated or damaged") from error


def _to_rgb(picture: PillowImage.Image) -> PillowImage.Image:
    if picture.mode.startswith("I;16"):
        high = (np.asarray(picture).astype(np.uint16) >> 8).astype(np.uint8)
        return PillowImage.fromarray(high).convert("RGB")
    if picture.mode in ("I", "F"):
        raise ValueError("32-bit pixels have no agreed range")
    if picture.has_transparency_data:
        white = PillowImage.new("RGBA", picture.size, "white")
        return PillowImage.alpha_composite(white, picture.convert("RGBA")).convert("RGB")
    return picture.convert("RGB")


def _opened(data: bytes) -> PillowImage.Image:
    """A picture of which only the header was read."""
    if not data.startswith(_MAGIC):
        raise UnsupportedMediaError(f"expected {FORMATS_TEXT}, got something else")
    try:
        return PillowImage.open(io.BytesIO(data), formats=FORMATS)
    except (PillowImage.DecompressionBombError, PillowImage.DecompressionBombWarning) as error:
        raise ImageTooLargeError("expected fewer pixels than the header announces") from error
    except UnidentifiedImageError as error:
        raise InvalidImageError(f"expected a whole {FORMATS_TEXT} file, its header cannot be read") from error
    except Exception as error:  # Pillow's plug-ins raise struct.error, ValueError, SyntaxError and more on broken files
        raise InvalidImageError("the picture's header is damaged") from error
