import numpy as np
import pytest

from ferserve.faces.types import Box, Detection
from ferserve.training.detector.matching import match, summarise

REFERENCE = np.array([[0, 0, 10, 10], [100, 100, 150, 150]], np.float32)
POINTS = np.array(
    [[[2, 3], [8, 3], [5, 5], [3, 8], [7, 8]], [[0, 0], [20, 0], [10, 10], [5, 15], [15, 15]]], np.float32
)


def _found(x0, y0, x1, y1, score=0.9, points=None):
    return Detection(box=Box(x0=x0, y0=y0, x1=x1, y1=y1), score=score, landmarks=points)


def test_one_detection_a_face_and_the_surest_first():
    twice = [_found(0, 0, 10, 9, score=0.7), _found(0, 0, 10, 10, score=0.8), _found(50, 50, 60, 60)]
    result = match(twice, REFERENCE)
    assert result.pairs.tolist() == [[1, 0]]
    assert result.unmatched == 2
    assert result.sizes_px.tolist() == [10, 50]


def test_half_an_overlap_is_enough_and_less_is_not():
    assert len(match([_found(0, 0, 10, 5)], REFERENCE).pairs) == 1
    assert len(match([_found(0, 0, 10, 4.9)], REFERENCE).pairs) == 0


def test_a_detection_may_take_its_second_best_face():
    near = np.array([[0, 0, 10, 10], [2, 0, 12, 10]], np.float32)
    result = match([_found(0, 0, 10, 10), _found(0.5, 0, 10.5, 10, score=0.5)], near)
    assert result.pairs.tolist() == [[0, 0], [1, 1]]


def test_landmark_error_is_a_share_of_the_eye_distance():
    moved = POINTS[1] + np.array([3, 4], np.float32)
    result = match([_found(100, 100, 150, 150, points=moved), _found(0, 0, 10, 10)], REFERENCE, POINTS)
    assert result.landmark_errors == pytest.approx([5 / 20])


def test_nothing_matches_nothing():
    assert match([], REFERENCE).unmatched == 0
    assert match([_found(0, 0, 1, 1)], np.zeros((0, 4), np.float32)).unmatched == 1


def test_rates_add_up():
    first = match([_found(0, 0, 10, 10), _found(40, 40, 50, 50)], REFERENCE)
    rates = summarise([first, match([], REFERENCE[:1])])
    assert (rates.faces, rates.found, rates.recall) == (3, 1, pytest.approx(1 / 3))
    assert rates.unmatched_per_photo == 0.5
    assert rates.by_size == ((2, 1), (0, 0), (1, 0), (0, 0), (0, 0))
    assert rates.landmark_error is None
