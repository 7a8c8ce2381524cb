import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ferserve.faces.align import box_square, cut_square, landmark_square
from ferserve.faces.errors import DegenerateFaceError
from ferserve.faces.types import Box, Image, Landmarks

SIDE = 300
NOISE = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
# Smooth, so that a wrong pixel by half a step shows but rounding does not.
SMOOTH = cv2.GaussianBlur(NOISE, (0, 0), 6)
SMOOTH = cv2.normalize(SMOOTH, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
TEMPLATE = {"eye_y": 0.36, "eye_distance": 0.44}

scales = st.floats(12, 90)
angles = st.floats(-180, 180)
places = st.tuples(st.floats(110, 190), st.floats(110, 190))
sizes = st.sampled_from([24, 48, 96])
anything = st.floats(allow_nan=True, allow_infinity=True, width=32)


def align_by_box(image, box, *, size_px, scale):
    return cut_square(image, box_square(image, box, scale=scale), size_px=size_px)


def align_by_landmarks(image, landmarks, *, size_px, eye_y, eye_distance):
    return cut_square(image, landmark_square(landmarks, eye_y=eye_y, eye_distance=eye_distance), size_px=size_px)


def _face(centre, eye_distance, angle_deg) -> Landmarks:
    """A frontal face's landmarks around the middle of its eyes."""
    turn = complex(math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))) * eye_distance
    points = [complex(*centre) + turn * offset for offset in (-0.5, 0.5, 0.6j, -0.4 + 1.1j, 0.4 + 1.1j)]
    return np.array([(point.real, point.imag) for point in points], np.float32)


def _difference(one: Image, other: Image) -> float:
    return float(np.abs(one.astype(float) - other.astype(float)).mean())


@given(places, scales, angles, sizes)
@settings(max_examples=60, deadline=None)
def test_a_point_drawn_on_an_eye_lands_where_the_template_says(centre, eye_distance, angle_deg, size_px):
    landmarks = _face(centre, eye_distance, angle_deg)
    radius = max(3.0, eye_distance / 8)
    rows, columns = np.mgrid[0:SIDE, 0:SIDE] + 0.5
    for index, expected_x in ((0, 0.5 - 0.22), (1, 0.5 + 0.22)):
        distance = np.hypot(columns - landmarks[index, 0], rows - landmarks[index, 1])
        image = np.repeat((255 * np.clip(radius - distance + 0.5, 0, 1)).astype(np.uint8)[:, :, None], 3, axis=2)
        weights = align_by_landmarks(image, landmarks, size_px=size_px, **TEMPLATE)[:, :, 0].astype(float)
        y, x = ((np.indices(weights.shape) + 0.5) * weights).sum(axis=(1, 2)) / weights.sum()
        assert x == pytest.approx(size_px * expected_x, abs=0.35)
        assert y == pytest.approx(size_px * 0.36, abs=0.35)


@given(st.integers(-60, 60), st.integers(-60, 60), st.floats(10, 60), st.floats(1, 2), sizes)
@settings(max_examples=60, deadline=None)
def test_moving_picture_and_box_together_changes_nothing(right, down, side, scale, size_px):
    canvas = np.zeros((SIDE * 2, SIDE * 2, 3), np.uint8)
    canvas[150:450, 150:450] = NOISE
    moved = np.roll(canvas, (down, right), axis=(0, 1))
    box = Box(x0=280.25, y0=270.5, x1=280.25 + side, y1=270.5 + side / 2)
    there = Box(x0=box.x0 + right, y0=box.y0 + down, x1=box.x1 + right, y1=box.y1 + down)
    one = align_by_box(canvas, box, size_px=size_px, scale=scale)
    assert np.array_equal(one, align_by_box(moved, there, size_px=size_px, scale=scale))


@given(places, scales, st.integers(0, 3), sizes)
@settings(max_examples=60, deadline=None)
def test_quarter_turns_of_picture_and_landmarks_give_the_same_crop(centre, eye_distance, quarters, size_px):
    landmarks = _face(centre, eye_distance, 10.0)
    upright = align_by_landmarks(SMOOTH, landmarks, size_px=size_px, **TEMPLATE)
    points = landmarks
    for _ in range(quarters):
        points = np.stack([points[:, 1], SIDE - points[:, 0]], axis=1)
    turned = np.ascontiguousarray(np.rot90(SMOOTH, quarters))
    crop = align_by_landmarks(turned, points.astype(np.float32), size_px=size_px, **TEMPLATE)
    assert _difference(upright, crop) < 1.5


@given(places, st.floats(20, 60), st.floats(-40, 40))
@settings(max_examples=40, deadline=None)
def test_any_turn_of_picture_and_landmarks_gives_nearly_the_same_crop(centre, eye_distance, angle_deg):
    landmarks = _face(centre, eye_distance, 0.0)
    middle = (SIDE / 2, SIDE / 2)
    # OpenCV turns about pixel centres, half a pixel beside the corner-based frame.
    matrix = cv2.getRotationMatrix2D((middle[0] - 0.5, middle[1] - 0.5), -angle_deg, 1.0)
    turned = cv2.warpAffine(SMOOTH, matrix, (SIDE, SIDE), flags=cv2.INTER_CUBIC)
    around = (landmarks - middle) @ matrix[:, :2].T + middle
    upright = align_by_landmarks(SMOOTH, landmarks, size_px=48, **TEMPLATE)
    crop = align_by_landmarks(turned.astype(np.uint8), around.astype(np.float32), size_px=48, **TEMPLATE)
    inner = slice(12, 36)  # the crop's corners may lie where turning the picture left nothing
    assert _difference(upright[inner, inner], crop[inner, inner]) < 3


@given(st.floats(20, 70), st.sampled_from([2, 3, 5]))
@settings(max_examples=30, deadline=None)
def test_the_same_face_in_a_larger_picture_gives_nearly_the_same_crop(side, factor):
    large = cv2.resize(SMOOTH, (SIDE * factor, SIDE * factor), interpolation=cv2.INTER_CUBIC)
    box = Box(x0=100.0, y0=110.0, x1=100.0 + side, y1=110.0 + side)
    small_crop = align_by_box(SMOOTH, box, size_px=24, scale=1.2)
    large_crop = align_by_box(large.astype(np.uint8), box.scaled(factor), size_px=24, scale=1.2)
    assert _difference(small_crop, large_crop) < 2


@given(st.tuples(anything, anything, anything, anything), st.floats(0.5, 3.0))
@settings(max_examples=150, deadline=None)
def test_any_box_gives_a_crop_or_is_refused(corners, scale):
    x0, y0, x1, y1 = corners
    try:
        crop = align_by_box(NOISE, Box(x0=x0, y0=y0, x1=x1, y1=y1), size_px=24, scale=scale)
    except DegenerateFaceError:
        return
    assert crop.shape == (24, 24, 3)
    assert min(x1, SIDE) > max(x0, 0)
    assert min(y1, SIDE) > max(y0, 0)


@given(st.lists(st.tuples(anything, anything), min_size=5, max_size=5))
@settings(max_examples=150, deadline=None)
def test_any_landmarks_give_a_crop_or_are_refused(points):
    landmarks = np.array(points, np.float32)
    try:
        crop = align_by_landmarks(NOISE, landmarks, size_px=24, **TEMPLATE)
    except DegenerateFaceError:
        return
    assert np.isfinite(landmarks).all()
    assert crop.shape == (24, 24, 3)


@given(st.lists(st.tuples(st.floats(-400, 700), st.floats(-400, 700)), min_size=5, max_size=5))
@settings(max_examples=150, deadline=None)
def test_landmarks_about_the_picture_give_crops_of_its_own_pixels(points):
    landmarks = np.array(points, np.float32)
    white = np.full((SIDE, SIDE, 3), 255, np.uint8)
    try:
        crop = align_by_landmarks(white, landmarks, size_px=24, **TEMPLATE)
    except DegenerateFaceError:
        return
    assert (crop == 255).all()
