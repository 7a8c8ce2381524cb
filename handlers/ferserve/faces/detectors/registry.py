"""Detectors by what flags and settings take: a name, or the path of an ONNX file."""

from functools import cache
from pathlib import Path
from typing import Final

from ferserve.faces.detectors.haar import HaarDetector
from ferserve.faces.detectors.onnx import OnnxDetector
from ferserve.faces.detectors.protocol import Detector
from ferserve.faces.errors import InvalidRequestError
from ferserve.faces.index import read_detector, shipped_index

SUFFIX: Final = ".onnx"
HAAR: Final = "haar"
SHIPPED: Final = "ferdet"
"""The detector of `assets/`."""
OWN_FILE: Final = "onnx"
"""What answers call a user's own file: its path is nobody else's business."""
DETECTOR_NAMES: Final = (SHIPPED, HAAR)
DEFAULT_DETECTOR: Final = SHIPPED
DETECTORS_TEXT: Final = f"{', '.join(DETECTOR_NAMES)} or the path of a YuNet file that ends with {SUFFIX}"


def is_detector(name_or_path: str) -> bool:
    """Whether `load_detector` takes this; a file may still be missing or no detector."""
    return name_or_path in DETECTOR_NAMES or name_or_path.endswith(SUFFIX)


def load_detector(name_or_path: str) -> Detector:
    """Make a detector.

    Args:
        name_or_path: one of `DETECTOR_NAMES`, or the path of an ONNX file with YuNet's inputs and outputs.
    Raises:
        InvalidRequestError: neither; lists the known names.
        ArchiveError: its file is missing, altered, or no such detector.
    """
    if not is_detector(name_or_path):
        raise InvalidRequestError(f"detector: expected one of {DETECTORS_TEXT}, got {name_or_path!r}")
    if name_or_path == HAAR:
        return HaarDetector()
    if name_or_path == SHIPPED:
        return OnnxDetector(read_detector(shipped_index()), name=SHIPPED)
    return OnnxDetector.from_file(Path(name_or_path), name=OWN_FILE)


@cache
def default_detector() -> Detector:
    """The detector that serving uses unless told otherwise, made once."""
    return load_detector(DEFAULT_DETECTOR)
