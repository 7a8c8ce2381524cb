from dataclasses import asdict

import numpy as np
import pytest
import skimage.data

from ferserve.faces.align import landmark_square
from ferserve.faces.errors import ArchiveError, DegenerateFaceError, InvalidRequestError
from ferserve.faces.preprocess import PreprocessSpec, face_crop, whole_crop
from ferserve.faces.types import Box, Detection

GREY = PreprocessSpec(size_px=48, channels=1)
PHOTO = skimage.data.astronaut()
POINTS = np.array([[205, 105], [243, 105], [224, 125], [209, 142], [240, 142]], np.float32)


def test_a_grey_picture_of_the_right_size_passes_unchanged():
    grey = np.random.default_rng(0).integers(0, 256, (48, 48, 1), dtype=np.uint8)
    assert np.array_equal(whole_crop(np.repeat(grey, 3, axis=2), GREY), grey)


@pytest.mark.parametrize("channels", [1, 3])
def test_crops_have_the_specs_shape_and_are_no_views(channels):
    spec = PreprocessSpec(size_px=64, channels=channels)
    box = Box(x0=177, y0=67, x1=270, y1=160)
    for points in (None, POINTS):
        crop = face_crop(PHOTO, Detection(box=box, score=1.0, landmarks=points), spec)
        assert crop.shape == (64, 64, channels)
        assert crop.dtype == np.uint8
        assert crop.flags.c_contiguous
        assert not np.shares_memory(crop, PHOTO)


def test_a_box_crop_of_whole_pixels_is_the_pixels():
    box = Box(x0=100, y0=50, x1=148, y1=98)
    spec = PreprocessSpec(size_px=48, channels=3)
    crop = face_crop(PHOTO, Detection(box=box, score=1.0), spec)
    assert np.array_equal(crop, PHOTO[50:98, 100:148])


def test_landmarks_bring_the_eyes_to_the_template():
    image = np.zeros((200, 200, 3), np.uint8)
    eyes = [(120.5, 80.5), (150.5, 110.5)]
    for x, y in eyes:
        image[int(y) - 2 : int(y) + 3, int(x) - 2 : int(x) + 3] = 255
    centre, down = np.mean(eyes, axis=0), np.array([-24.4, 24.4])
    points = np.array([*eyes, centre + down / 2, centre + down - 8, centre + down + 8], np.float32)
    spec = PreprocessSpec(size_px=96, channels=1)
    # A box that says the same as the landmarks.
    square = landmark_square(points, eye_y=spec.eye_y, eye_distance=spec.eye_distance)
    x0, y0, side = (
        square.centre.real - abs(square.edge) / 2,
        square.centre.imag - abs(square.edge) / 2,
        abs(square.edge),
    )
    box = Box(x0=x0, y0=y0, x1=x0 + side, y1=y0 + side)
    crop = face_crop(image, Detection(box=box, score=1.0, landmarks=points), spec)[:, :, 0].astype(float)
    for half, expected_x in ((slice(0, 48), 0.5 - 0.22), (slice(48, 96), 0.5 + 0.22)):
        weights = np.zeros_like(crop)
        weights[:, half] = crop[:, half]
        y, x = ((np.indices(crop.shape) + 0.5) * weights).sum(axis=(1, 2)) / weights.sum()
        assert x == pytest.approx(96 * expected_x, abs=0.7)
        assert y == pytest.approx(96 * 0.36, abs=0.7)


@pytest.mark.parametrize(
    "box",
    [
        Box(x0=10, y0=10, x1=10, y1=20),
        Box(x0=600, y0=10, x1=700, y1=20),
        Box(x0=float("nan"), y0=0, x1=5, y1=5),
        Box(x0=20, y0=0, x1=5, y1=5),
    ],
)
def test_boxes_that_hold_no_face_are_refused(box):
    with pytest.raises(DegenerateFaceError, match="expected a"):
        face_crop(PHOTO, Detection(box=box, score=1.0), GREY)


def test_landmarks_that_are_no_face_are_refused():
    box = Box(x0=177, y0=67, x1=270, y1=160)
    for bad in (np.zeros((5, 2)), np.full((5, 2), np.inf)):
        with pytest.raises(DegenerateFaceError, match="expected"):
            face_crop(PHOTO, Detection(box=box, score=1.0, landmarks=bad.astype(np.float32)), GREY)


def test_other_arrays_are_refused():
    for bad in (np.zeros((5, 5), np.uint8), np.zeros((5, 5, 3), np.float32)):
        with pytest.raises(InvalidRequestError, match=r"expected uint8 of shape \(H, W, 3\)"):
            whole_crop(bad, GREY)


def test_the_hash_follows_every_setting():
    hashes = {GREY.sha256}
    for change in ({"size_px": 64}, {"channels": 3}, {"box_scale": 1.2}, {"eye_y": 0.4}, {"eye_distance": 0.5}):
        hashes.add(PreprocessSpec(**(asdict(GREY) | change)).sha256)
    assert len(hashes) == 6
    assert PreprocessSpec.from_json(asdict(GREY)) == GREY


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"size_px": 8, "channels": 1}, "size_px must be .*16 to 512, got 8"),
        ({"size_px": 48, "channels": 2}, "channels must be .*, got 2"),
        ({"size_px": 48, "channels": 1, "eye_y": 2.0}, "eye_y must be"),
        ({"size_px": 48, "channels": 1, "box_scale": 9.0}, "box_scale must be"),
    ],
)
def test_settings_out_of_range_are_named(value, message):
    with pytest.raises(ValueError, match=message):
        PreprocessSpec(**value)
    with pytest.raises(ArchiveError, match=r"expected keys|" + message):
        PreprocessSpec.from_json(asdict(GREY) | value)
