"""Face detectors behind one protocol; `default_detector()` is the one that serving uses unless told otherwise."""

from ferserve.faces.detectors.protocol import Detector
from ferserve.faces.detectors.registry import DETECTOR_NAMES, default_detector, load_detector

__all__ = ["DETECTOR_NAMES", "Detector", "default_detector", "load_detector"]
