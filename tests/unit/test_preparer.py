"""What a thread does of a photo, step by step, with a clock that ticks once a reading."""

import itertools
from collections.abc import Callable, Iterator

import cv2
import numpy as np
import pytest

from ferserve.faces.decode import DecodeLimits
from ferserve.faces.detectors import Detector
from ferserve.faces.preprocess import PreprocessSpec
from ferserve.faces.types import Box, Detection, Image
from ferserve.serving.errors import CallCancelledError, DeadlineError
from ferserve.serving.preparer import FACES_A_STEP, Caller, Preparer, Steps
from ferserve.serving.requests import AnalyzeOptions

SPEC = PreprocessSpec(size_px=16, channels=1)
PICTURE = bytes(cv2.imencode(".png", np.full((240, 320, 3), 90, dtype=np.uint8))[1])
FACE = Detection(box=Box(x0=60, y0=60, x1=100, y1=100), score=0.9)


class PatientDetector(Detector):
    """Finds some faces in some steps."""

    name = "patient"

    def __init__(self, *, faces: int, steps: int) -> None:
        self.calls, self._faces, self._steps = 0, faces, steps

    def default_size_px(self, height_px: int, width_px: int) -> int:  # noqa: ARG002 - as every detector
        return 320

    def detect(self, image: Image, *, size_px: int | None = None) -> list[Detection]:  # noqa: ARG002 - as every detector
        self.calls += 1
        return [FACE] * self._faces

    def steps(self, image: Image, *, size_px: int | None = None) -> Steps[list[Detection]]:
        for _ in range(self._steps - 1):
            yield
        return self.detect(image, size_px=size_px)


@pytest.fixture
def make() -> Callable[..., tuple[Preparer, PatientDetector]]:
    ticks: Iterator[int] = itertools.count()

    def made(*, faces: int = 2, steps: int = 1) -> tuple[Preparer, PatientDetector]:
        detector = PatientDetector(faces=faces, steps=steps)
        preparer = Preparer(detector, DecodeLimits(), lambda: float(next(ticks)), max_decode_bytes=2**27)
        return preparer, detector

    return made


def finished(steps):
    """Take all steps; returns the result and how many pauses there were."""
    count = 0
    while True:
        try:
            next(steps)
        except StopIteration as done:
            return done.value, count
        count += 1


def test_a_photo_in_time_has_all_its_stages(make):
    photo, pauses = finished(make()[0].photo(PICTURE, AnalyzeOptions(), SPEC, Caller(deadline_s=100.0)))
    assert (photo.found, photo.skipped, len(photo.faces)) == (2, 0, 2)
    assert pauses == 2  # before detection and before the crops
    assert all(stage_s > 0 for stage_s in (photo.decode_s, photo.detect_s, photo.preprocess_s))


def test_a_crowd_pauses_between_the_detectors_steps_and_between_its_crops(make):
    preparer, _ = make(faces=3 * FACES_A_STEP, steps=4)
    photo, pauses = finished(preparer.photo(PICTURE, AnalyzeOptions(), SPEC, Caller(deadline_s=100.0)))
    assert len(photo.faces) == 3 * FACES_A_STEP
    assert pauses == 1 + 3 + 1 + 2


def test_a_pause_is_no_time_of_any_stage():
    now_s = 0.0
    preparer = Preparer(
        PatientDetector(faces=3 * FACES_A_STEP, steps=4), DecodeLimits(), lambda: now_s, max_decode_bytes=2**27
    )
    steps = preparer.photo(PICTURE, AnalyzeOptions(), SPEC, Caller(deadline_s=1e9))
    while True:
        try:
            next(steps)
        except StopIteration as done:
            photo = done.value
            break
        now_s += 1000.0
    assert (photo.decode_s, photo.detect_s, photo.preprocess_s) == (0.0, 0.0, 0.0)


def test_the_deadline_is_looked_at_before_each_costly_part(make):
    for deadline_s in (0.0, 2.0):
        preparer, detector = make()
        with pytest.raises(DeadlineError):
            finished(preparer.photo(PICTURE, AnalyzeOptions(), SPEC, Caller(deadline_s=deadline_s)))
        assert detector.calls == 0


def test_the_deadline_is_looked_at_before_each_crop(make):
    with pytest.raises(DeadlineError):
        finished(make()[0].crops([PICTURE] * 10, SPEC, Caller(deadline_s=5.0)))


def test_nothing_is_done_for_a_caller_who_left(make):
    preparer, detector = make()
    caller = Caller(deadline_s=100.0, has_left=True)
    for steps in (preparer.photo(PICTURE, AnalyzeOptions(), SPEC, caller), preparer.crops([PICTURE], SPEC, caller)):
        with pytest.raises(CallCancelledError):
            finished(steps)
    assert detector.calls == 0


def test_a_caller_who_leaves_in_a_pause_is_noticed_after_it(make):
    preparer, detector = make()
    caller = Caller(deadline_s=100.0)
    steps = preparer.photo(PICTURE, AnalyzeOptions(), SPEC, caller)
    next(steps)
    caller.has_left = True
    with pytest.raises(CallCancelledError):
        next(steps)
    assert detector.calls == 0
