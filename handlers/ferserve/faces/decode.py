"""From bytes to RGB pixels, upright; every limit holds before a pixel exists (see docs/adr/0002-decoders.md).

Pillow's plug-ins are called by class and not through `Image.open`: its guard against huge pictures is one setting for
the whole process and warns, where here each call brings its own limits.
"""

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import cv2
import numpy as np
import simplejpeg
from PIL import Image as PillowImage
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from ferserve.faces.decode_memory import (
    MemoryNeededError,
    check_granted,
    jpeg_bytes,
    pillow_bytes,
    pillow_factor,
    strip_rows,
    webp_bytes,
)
from ferserve.faces.errors import FerserveError, ImageTooLargeError, InvalidImageError, UnsupportedMediaError
from ferserve.faces.exif import UPRIGHT, JpegHead, orientation, read_jpeg_head
from ferserve.faces.libtiff import silence_libtiff
from ferserve.faces.media import announced_size, media_kind
from ferserve.faces.types import Image

MAX_PILLOW_PIXELS: Final = 1024**3 // 4 // 3
"""Pillow warns inside some plug-ins beyond this (89 million); what it decodes is refused there at the latest."""
MAX_JPEG_SCANS: Final = 100
"""Encoders write about ten. Each costs a pass over all pixels for next to no bytes, so thousands would be an attack."""
HARMLESS: Final = (
    "extraneous bytes before marker",
    "unknown JFIF revision",
    "Unknown Adobe color transform",
    "bad ICC marker",
    "Invalid SOS parameters",
)
"""What libjpeg warns of although all pixels are there (Pillow then decodes); any other warning: it made some up."""

_PLUGINS: Final[dict[str, type[ImageFile]]] = {
    "JPEG": JpegImageFile,  # an MPO too: a JPEG with further pictures behind it, as some phones write
    "PNG": PngImageFile,
    "WEBP": WebPImageFile,
    "BMP": BmpImageFile,
    "TIFF": TiffImageFile,
    "GIF": GifImageFile,
}
_TURNS: Final = {
    3: cv2.ROTATE_180,
    6: cv2.ROTATE_90_CLOCKWISE,
    7: cv2.ROTATE_180,
    8: cv2.ROTATE_90_COUNTERCLOCKWISE,
}
_FLIPS: Final = {2: 1, 4: 0}
_TRANSPOSED: Final = (5, 7)
_SWAPS_AXES: Final = (5, 6, 7, 8)
_TILE_WIDTH, _TILE_HEIGHT = 322, 323
MinSide = int | Callable[[int, int], int]
"""Pixels that the longer side keeps, or what tells them by the announced height and width."""

# Pillow warns of odd metadata, in TIFF mostly, that changes no pixel. Appended: an application's own filters win.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.", append=True)
silence_libtiff()


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeLimits:
    """What is refused before it costs anything.

    Attributes:
        max_image_bytes: of the encoded picture.
        max_image_pixels: width times height that the header announces; formats other than JPEG end at
            `MAX_PILLOW_PIXELS` anyway. It bounds time. What bounds memory is what decoding is granted, which allows
            far fewer pixels of some formats: a gateway's `decode_budget_bytes`.
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
        scale: its longer side over the original's: 1, or less where it was decoded at a reduced scale.
        width_px, height_px: of the original after its EXIF rotation.
        format: `JPEG`, `PNG`, `WEBP`, `BMP`, `TIFF` or `GIF`.
    """

    pixels: Image
    scale: float
    width_px: int
    height_px: int
    format: str


def decode(
    data: bytes, limits: DecodeLimits, *, min_side_px: MinSide | None = None, granted_bytes: int | None = None
) -> DecodedImage:
    """Decode one picture; of an animation the first frame.

    Sixteen bits become eight by their high byte, palettes and CMYK become RGB, and what is transparent turns white,
    as a page would show it.

    Args:
        data: an encoded picture.
        min_side_px: it may come out smaller, as long as its longer side keeps this many pixels; None keeps all.
        granted_bytes: memory that decoding may take at its peak, `data` not counted; None grants all.
    Raises:
        MemoryNeededError: it takes more than was granted; says how much.
        ImageTooLargeError: over a limit, by the length of `data` or by what the header announces.
        UnsupportedMediaError: not one of the formats, or pixels that have no agreed range (32 bits, CIELAB).
        InvalidImageError: one of the formats, but undecodable, truncated or of zero size.
    """
    if len(data) > limits.max_image_bytes:
        raise ImageTooLargeError(f"expected at most {limits.max_image_bytes} bytes, got {len(data)}")
    if not data:
        raise InvalidImageError("expected an encoded picture, got 0 bytes")
    kind = media_kind(data)
    try:
        return _decode(kind, data, _Asked(limits.max_image_pixels, min_side_px, granted_bytes))
    except (FerserveError, MemoryNeededError):
        raise
    except PillowImage.DecompressionBombError as error:
        raise ImageTooLargeError("expected fewer pixels than the picture announces") from error
    # Pillow's plug-ins raise SyntaxError, struct.error, zlib.error, OSError, ValueError and more on broken files;
    # MemoryError too: a header that lies is no fault of the server.
    except Exception as error:
        raise InvalidImageError(f"expected a whole {kind} picture, got a truncated or damaged one") from error


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a caller of `decode` asks for."""

    max_pixels: int
    min_side_px: MinSide | None
    granted_bytes: int | None

    def side_px(self, size: tuple[int, int]) -> int | None:
        """Pixels that the longer side of a picture of this width and height keeps; None for all."""
        width, height = size
        return self.min_side_px(height, width) if callable(self.min_side_px) else self.min_side_px


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Stored:
    """Decoded pixels as the file stores them, the size that the file announces, and its EXIF block."""

    pixels: Image
    size: tuple[int, int]
    exif: bytes


def _decode(kind: str, data: bytes, asked: _Asked) -> DecodedImage:
    if kind == "JPEG":
        head = read_jpeg_head(data)
        found = _by_libjpeg(data, head, asked) or _by_pillow(kind, data, asked, in_one_scan=head.in_one_scan)
    else:
        found = _by_pillow(kind, data, asked)
    turn = orientation(found.exif)
    width, height = found.size[::-1] if turn in _SWAPS_AXES else found.size
    scale = max(found.pixels.shape) / max(found.size)
    return DecodedImage(pixels=_upright(found.pixels, turn), scale=scale, width_px=width, height_px=height, format=kind)


def _check_pixels(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise InvalidImageError(f"expected at least 1 x 1 pixel, got {width} x {height}")
    if width * height > max_pixels:
        raise ImageTooLargeError(f"expected at most {max_pixels} pixels, got {width} x {height}")


def _by_libjpeg(data: bytes, head: JpegHead, asked: _Asked) -> _Stored | None:
    """A plain JPEG by libjpeg-turbo, at a reduced scale if that keeps what is asked; None leaves it to Pillow.

    Raises:
        ValueError: truncated or damaged.
    """
    if head.progressive and data.count(b"\xff\xda") > MAX_JPEG_SCANS:
        raise InvalidImageError(f"expected a JPEG of at most {MAX_JPEG_SCANS} scans, got more")
    try:
        height, width, colours, subsampling = simplejpeg.decode_jpeg_header(data, strict=False)
    except ValueError:  # a subsampling that TurboJPEG has no name for, or no JPEG at all: Pillow will tell
        return None
    if colours in ("CMYK", "YCCK"):
        return None
    _check_pixels((width, height), asked.max_pixels)
    min_side_px = asked.side_px((width, height))
    needed_bytes = jpeg_bytes(
        (width, height),
        min_side_px,
        subsampling=subsampling,
        in_one_scan=head.in_one_scan,
        is_turned=orientation(head.exif) != UPRIGHT,
    )
    check_granted(needed_bytes, asked.granted_bytes)
    options: dict[str, Any] = {"colorspace": "RGB"}
    if min_side_px is not None:
        longer = max(width, height)
        # Between full and half size the decoder is slower than at full.
        options |= {
            "min_width": min_side_px * width // longer,
            "min_height": min_side_px * height // longer,
            "min_factor": 2,
        }
    try:
        pixels = simplejpeg.decode_jpeg(data, **options)
    except ValueError as error:
        if any(warning in str(error) for warning in HARMLESS):
            return None
        raise
    return _Stored(pixels=np.asarray(pixels, dtype=np.uint8), size=(width, height), exif=head.exif)


def _by_pillow(kind: str, data: bytes, asked: _Asked, *, in_one_scan: bool = True) -> _Stored:
    """The first frame of anything by Pillow, whose decoders raise where a file is broken."""
    max_pixels = min(asked.max_pixels, MAX_PILLOW_PIXELS)
    early = announced_size(kind, data)
    if early is not None:
        _check_pixels(early, max_pixels)
        if kind == "WEBP":
            check_granted(webp_bytes(early), asked.granted_bytes)
    with _PLUGINS[kind](io.BytesIO(data)) as picture:
        _check_pixels(picture.size, max_pixels)
        if isinstance(picture, TiffImageFile):
            _check_tiles(picture, max_pixels)
        if picture.mode in ("I", "F", "LAB"):
            raise UnsupportedMediaError(f"expected RGB, grey, palette or CMYK pixels, got mode {picture.mode}")
        factor = pillow_factor(picture.size, asked.side_px(picture.size))
        coefficients = 0 if in_one_scan else len(picture.getbands())
        needed = partial(pillow_bytes, kind, picture.mode, picture.size, factor=factor, coefficients=coefficients)
        if kind != "WEBP":
            check_granted(needed(is_turned=_is_turned(kind, picture)), asked.granted_bytes)
        picture.load()
        if kind == "PNG":  # its EXIF block may come after its pixels
            check_granted(needed(is_turned=_is_turned(kind, picture)), asked.granted_bytes)
        if picture.mode in ("P", "PA") and picture.palette is None:
            raise InvalidImageError("expected a palette for the picture's pixels, got none")
        size = picture.size
        return _Stored(pixels=_rgb(picture, factor), size=size, exif=_exif(kind, picture))


def _exif(kind: str, picture: ImageFile) -> bytes:
    """What is left to be done about orientation: Pillow turns a TIFF upright by itself as it loads."""
    exif: bytes = b"" if kind == "TIFF" else picture.info.get("exif", b"")
    return exif


def _is_turned(kind: str, picture: ImageFile) -> bool:
    return orientation(_exif(kind, picture)) != UPRIGHT


def _check_tiles(picture: TiffImageFile, max_pixels: int) -> None:
    """A small TIFF may announce huge tiles, which are decoded whole."""
    tags: Any = picture.tag_v2
    if tags.get(_TILE_WIDTH, 0) * tags.get(_TILE_HEIGHT, 0) > max_pixels:
        raise ImageTooLargeError(f"expected tiles of at most {max_pixels} pixels")


def _rgb(picture: ImageFile, factor: int) -> Image:
    """Strip by strip, each reduced at once: Pillow would hold the whole picture four times over."""
    width, height = picture.size
    pixels = np.empty((-(-height // factor), -(-width // factor), 3), dtype=np.uint8)
    rows = strip_rows(picture.size, factor)
    for top in range(0, height, rows):
        strip = _strip_rgb(picture.crop((0, top, width, min(top + rows, height))))
        first = top // factor
        pixels[first : first + rows // factor] = np.asarray(strip if factor == 1 else strip.reduce(factor))
    return pixels


def _strip_rgb(picture: PillowImage.Image) -> PillowImage.Image:
    if picture.mode.startswith("I;16"):
        return PillowImage.fromarray((np.asarray(picture).astype(np.uint16) >> 8).astype(np.uint8)).convert("RGB")
    if picture.has_transparency_data:
        white = PillowImage.new("RGBA", picture.size, "white")
        return PillowImage.alpha_composite(white, picture.convert("RGBA")).convert("RGB")
    return picture.convert("RGB")


def _upright(pixels: Image, turn: int) -> Image:
    """Undo an EXIF orientation; OpenCV turns eight times as fast as numpy."""
    out: Any = pixels
    if turn in _TRANSPOSED:
        out = cv2.transpose(out)
    if turn in _TURNS:
        out = cv2.rotate(out, _TURNS[turn])
    if turn in _FLIPS:
        out = cv2.flip(out, _FLIPS[turn])
    return np.ascontiguousarray(out, dtype=np.uint8)
