import cv2
import numpy as np
import pytest
import skimage.data

from ferserve.faces.preprocess import PreprocessSpec, face_crop
from ferserve.faces.quality import assess
from ferserve.faces.types import Box, Detection, QualityIssue

SPEC = PreprocessSpec(size_px=48, channels=1)
PHOTO = skimage.data.astronaut()
FACE = Box(x0=177, y0=67, x1=270, y1=160)
POINTS = np.array([[205, 105], [243, 105], [224, 125], [209, 142], [240, 142]], np.float32)


def _issues(image, box=FACE, points=None, scale=1.0):
    detection = Detection(box=box, score=1.0, landmarks=points)
    return assess(image, detection, face_crop(image, detection, SPEC), scale=scale)


def test_a_good_face_has_no_issue():
    quality = _issues(PHOTO, points=POINTS)
    assert quality.issues == ()
    assert quality.size_px == pytest.approx(93)
    assert quality.yaw == pytest.approx(0.0, abs=0.01)
    assert quality.roll_deg == pytest.approx(0.0, abs=0.01)


def test_size_counts_original_pixels():
    assert _issues(PHOTO, scale=0.5).size_px == pytest.approx(186)
    assert QualityIssue.SMALL in _issues(PHOTO, scale=4.0).issues


def test_without_landmarks_there_is_no_pose():
    quality = _issues(PHOTO)
    assert (quality.yaw, quality.roll_deg) == (None, None)


@pytest.mark.parametrize(
    ("change", "issue"),
    [
        (lambda p: cv2.GaussianBlur(p, (0, 0), 8), QualityIssue.BLURRED),
        (lambda p: (p * 0.1).astype(np.uint8), QualityIssue.DARK),
        (lambda p: (230 + p * 0.1).astype(np.uint8), QualityIssue.BRIGHT),
    ],
)
def test_light_and_blur(change, issue):
    assert issue in _issues(change(PHOTO)).issues


def test_turned_tilted_and_cut_off():
    turned = POINTS.copy()
    turned[2, 0] = 240
    quality = _issues(PHOTO, points=turned)
    assert quality.yaw == pytest.approx(16 / 19, abs=0.01)
    assert QualityIssue.TURNED in quality.issues
    angle = np.deg2rad(30)
    rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    tilted = ((POINTS - POINTS.mean(axis=0)) @ rotation + POINTS.mean(axis=0)).astype(np.float32)
    quality = _issues(PHOTO, points=tilted)
    assert quality.roll_deg == pytest.approx(30, abs=0.1)
    assert quality.issues == (QualityIssue.TILTED,)
    assert QualityIssue.CUT_OFF in _issues(PHOTO, box=Box(x0=-50, y0=67, x1=43, y1=160)).issues
