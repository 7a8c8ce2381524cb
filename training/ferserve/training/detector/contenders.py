"""The detectors that are compared, by what the command line calls them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import onnx

from ferserve.faces.detectors import DETECTOR_NAMES, Detector, default_detector, load_detector
from ferserve.faces.detectors.onnx import OnnxDetector
from ferserve.training.detector.labelling import FACE_SCORE
from ferserve.training.detector.teacher import with_free_size

DEFAULT: Final = "default"
YARDSTICK: Final = "haar"
TEACHER: Final = "teacher"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One detector under the name that reports give it."""

    name: str
    detector: Detector


def find_detector(text: str) -> Contender:
    """A detector by `default`, a known name, or the path of an ONNX file.

    Raises:
        InvalidRequestError: none of these.
        ArchiveError: the file is missing or no detector.
    """
    if text == DEFAULT:
        return Contender(name=text, detector=default_detector())
    name = text if text in DETECTOR_NAMES else Path(text).stem
    return Contender(name=name, detector=load_detector(text))


def teacher_contender(path: Path) -> Contender:
    """The teacher at its own threshold, its input size set free: padded to a fixed size it would only be slower."""
    content = with_free_size(onnx.load(path)).SerializeToString()
    return Contender(name=TEACHER, detector=OnnxDetector(content, name=TEACHER, min_score=FACE_SCORE))


def line_up(text: str, teacher_file: Path | None) -> list[Contender]:
    """The detector in question, Haar, and the teacher if there is one; each once."""
    first = find_detector(text)
    contenders = [first]
    if first.detector.name != YARDSTICK:
        contenders.append(find_detector(YARDSTICK))
    if teacher_file is not None:
        contenders.append(teacher_contender(teacher_file))
    return contenders
