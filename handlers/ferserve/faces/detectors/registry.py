"""Detectors by the names that flags and settings take."""

from collections.abc import Callable
from functools import cache
from typing import Final

from ferserve.faces.detectors.haar import HaarDetector
from ferserve.faces.detectors.protocol import Detector
from ferserve.faces.errors import InvalidRequestError

_MAKERS: Final[dict[str, Callable[[], Detector]]] = {"haar": HaarDetector}
DETECTOR_NAMES: Final = tuple(_MAKERS)


def load_detector(name: str) -> Detector:
    """Make a detector.

    Raises:
        InvalidRequestError: no such detector; lists the known ones.
        ArchiveError: its file is missing.
    """
    if name not in _MAKERS:
        raise InvalidRequestError(f"detector: expected one of {', '.join(DETECTOR_NAMES)}, got {name!r}")
    return _MAKERS[name]()


@cache
def default_detector() -> Detector:
    """The detector that serving uses unless told otherwise, made once."""
    return load_detector(DETECTOR_NAMES[0])
