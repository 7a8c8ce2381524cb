"""From a picture to crops: what the gateway and the TorchServe handlers do alike around decoder and detector."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from ferserve.faces.align import Square
from ferserve.faces.decode import DecodedImage, MinSide
from ferserve.faces.detectors import Detector
from ferserve.faces.errors import DegenerateFaceError
from ferserve.faces.preprocess import PreprocessSpec, face_square, square_crop
from ferserve.faces.quality import assess
from ferserve.faces.types import Crop, Detection, Quality

CROPS_NEED: Final = 2
"""Crops are cut from so many times the pixels that detection sees, where the picture has them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedFace:
    """One face, ready for a model; the detection and the crop's square are in pixels of the original picture."""

    detection: Detection
    square: Square
    crop: Crop
    quality: Quality


def decoded_side(detector: Detector, *, detection_size_px: int | None, exact: bool) -> MinSide | None:
    """Pixels that a picture's longer side has to keep when it is decoded, as `decode` takes them.

    Args:
        detection_size_px: longer side that the picture is searched at; None leaves it to the detector.
        exact: every pixel is searched, so all are kept.
    """
    if exact:
        return None

    def wanted_px(height_px: int, width_px: int) -> int:
        return CROPS_NEED * (detection_size_px or detector.default_size_px(height_px, width_px))

    return wanted_px


def search_side_px(detector: Detector, decoded: DecodedImage, *, detection_size_px: int | None, exact: bool) -> int:
    """Longer side that a decoded picture is searched at; options as for `decoded_side`."""
    if exact:
        height, width = decoded.pixels.shape[:2]
        return int(max(height, width))
    return detection_size_px or detector.default_size_px(decoded.height_px, decoded.width_px)


def cut_faces(decoded: DecodedImage, found: Iterable[Detection], spec: PreprocessSpec) -> tuple[PreparedFace, ...]:
    """Cut faces out of a picture; those that no crop can be cut of are left out: one must not cost the others.

    Args:
        found: in pixels of `decoded`.
    """
    return tuple(face for face in (_cut(decoded, detection, spec) for detection in found) if face is not None)


def _cut(decoded: DecodedImage, detection: Detection, spec: PreprocessSpec) -> PreparedFace | None:
    try:
        square = face_square(decoded.pixels, detection, spec)
        crop = square_crop(decoded.pixels, square, spec)
    except DegenerateFaceError:
        return None
    quality = assess(decoded.pixels, detection, crop, scale=decoded.scale)
    original = 1 / decoded.scale
    return PreparedFace(
        detection=detection.scaled(original), square=square.scaled(original), crop=crop, quality=quality
    )
