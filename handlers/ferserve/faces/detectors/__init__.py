"""Face detectors behind one protocol; `default_detector()` is the one that serving uses unless told otherwise."""

from ferserve.faces.detectors.protocol import Detector
from ferserve.faces.detectors.registry import (
    DEFAULT_DETECTOR,
    DETECTOR_NAMES,
    DETECTORS_TEXT,
    default_detector,
    is_detector,
    load_detector,
)

__all__ = [
    "DEFAULT_DETECTOR",
    "DETECTORS_TEXT",
    "DETECTOR_NAMES",
    "Detector",
    "default_detector",
    "is_detector",
    "load_detector",
]
