import numpy as np
import pytest

from ferserve.faces.align import Square, between, box_square, cut_square, landmark_square, resize
from ferserve.faces.errors import DegenerateFaceError
from ferserve.faces.types import Box

NOISE = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
TEMPLATE = {"size_px": 50, "eye_y": 0.36, "eye_distance": 0.44}


def align_by_box(image, box, *, size_px, scale):
    return cut_square(image, box_square(image, box, scale=scale), size_px=size_px)


def align_by_landmarks(image, landmarks, *, size_px, eye_y, eye_distance):
    return cut_square(image, landmark_square(landmarks, eye_y=eye_y, eye_distance=eye_distance), size_px=size_px)


def _face(eyes, mouth, mouth_width=16.0):
    """Landmarks of an upright face: the eyes (2 points) and the middle of the mouth."""
    (x, y), half = mouth, mouth_width / 2
    return np.array([*eyes, [x, y - 10], [x - half, y], [x + half, y]], np.float32)


def _square(box):
    return align_by_box(NOISE, box, size_px=48, scale=1.0)


@pytest.mark.parametrize("factor", [1, 2, 3, 4, 8])
def test_a_whole_factor_averages_whole_blocks(factor):
    image = np.tile(NOISE, (2, 2, 1))
    side = 48 * factor
    crop = align_by_box(image, Box(x0=20, y0=10, x1=20 + side, y1=10 + side), size_px=48, scale=1.0)
    blocks = image[10 : 10 + side, 20 : 20 + side].reshape(48, factor, 48, factor, 3).mean(axis=(1, 3))
    assert np.abs(crop - blocks).max() <= 1


def test_a_fine_pattern_does_not_alias():
    stripes = np.zeros((400, 400, 3), np.uint8)
    stripes[:, ::2] = 255
    for side in (100, 137, 250, 399):
        crop = align_by_box(stripes, Box(x0=0, y0=0, x1=side, y1=side), size_px=20, scale=1.0)
        assert np.abs(crop[1:-1, 1:-1].astype(float) - 127.5).max() < 20


def test_the_square_surrounds_the_longer_side():
    image = np.zeros((200, 200, 3), np.uint8)
    image[90:110] = 255
    crop = align_by_box(image, Box(x0=80, y0=90, x1=120, y1=110), size_px=40, scale=1.0)
    assert (crop[11:29] == 255).all()
    assert (crop[:9] == 0).all()
    assert (crop[31:] == 0).all()
    wider = align_by_box(image, Box(x0=80, y0=90, x1=120, y1=110), size_px=40, scale=2.0)
    assert (wider[:, :, 0].mean(axis=1) > 127).sum() == 10


def test_beyond_the_picture_its_edge_goes_on():
    crop = _square(Box(x0=-24, y0=100, x1=24, y1=148))
    assert np.array_equal(crop[:, 24:], NOISE[100:148, :24])
    assert np.array_equal(crop[:, :24], np.repeat(NOISE[100:148, :1], 24, axis=1))


def test_crops_are_arrays_of_their_own():
    by_landmarks = align_by_landmarks(NOISE, _face([(100, 100), (122, 100)], (111, 125)), **TEMPLATE)
    for crop in (_square(Box(x0=0, y0=0, x1=48, y1=48)), by_landmarks, resize(NOISE, (320, 240))):
        assert crop.flags.c_contiguous
        assert crop.flags.writeable
        assert crop.dtype == np.uint8
        assert not np.shares_memory(crop, NOISE)


def test_pictures_wider_than_opencv_takes_are_cut_first():
    wide = np.zeros((60, 40_000, 3), np.uint8)
    wide[:, 39_000:] = 200
    assert (align_by_box(wide, Box(x0=39_100, y0=0, x1=39_160, y1=60), size_px=48, scale=1.0) == 200).all()
    assert align_by_box(wide, Box(x0=0, y0=0, x1=40_000, y1=60), size_px=48, scale=1.0).max() > 150


@pytest.mark.parametrize("size", [(320, 240), (100, 75), (640, 480), (100, 480), (640, 75), (1, 1)])
def test_resize_reaches_the_size_and_keeps_the_mean(size):
    out = resize(NOISE, size)
    assert out.shape == (size[1], size[0], 3)
    assert abs(out.mean() - NOISE.mean()) < 2
    if size == (320, 240):
        assert np.array_equal(out, NOISE)


def test_an_axis_that_shrinks_is_averaged_while_the_other_grows():
    stripes = np.zeros((10, 400, 3), np.uint8)
    stripes[:, ::2] = 255
    assert np.abs(resize(stripes, (100, 40)).astype(float) - 127.5).max() < 2


@pytest.mark.parametrize("size_px", [48, 50, 112])
def test_eyes_land_on_the_template(size_px):
    image = np.zeros((240, 320, 3), np.uint8)
    image[100:104, 100:104] = 255
    eyes = [(102, 102), (150, 102)]
    crop = align_by_landmarks(image, _face(eyes, (126, 157)), size_px=size_px, eye_y=0.36, eye_distance=0.44)
    weights = crop[:, :, 0].astype(float)
    y, x = ((np.indices(weights.shape) + 0.5) * weights).sum(axis=(1, 2)) / weights.sum()
    assert (x, y) == (pytest.approx(size_px * 0.28, abs=0.2), pytest.approx(size_px * 0.36, abs=0.2))


def _shown(landmarks):
    """Crop pixels between the eyes' middle, at the crop's, and a white edge at x = 200: more of them, larger scale."""
    image = np.zeros((400, 400, 3), np.uint8)
    image[:, :200] = 255
    crop = align_by_landmarks(image, landmarks, **TEMPLATE)
    return 25 - (crop[25, :, 0] / 255).sum()


def test_a_frontal_face_is_scaled_by_its_eyes_alone():
    eyes = [(210, 200), (254, 200)]
    assert _shown(_face(eyes, (232, 250))) == pytest.approx(_shown(_face(eyes, (232, 262))), abs=0.05)


def test_a_profile_is_scaled_by_eyes_and_mouth():
    # Eyes to mouth is 44 * 1.15 as in a frontal face with eyes 44 apart: the crop shows 100 pixels, 32 of them here.
    profile = _face([(230, 200), (234, 200)], (232, 200 + 44 * 1.15))
    assert _shown(profile) == pytest.approx(50 * 32 / 100, abs=0.3)


def test_turning_moves_the_scale_without_a_jump():
    shown = [_shown(_face([(232 - half, 200), (232 + half, 200)], (232, 250.6))) for half in np.arange(3.0, 22.0, 0.25)]
    assert np.abs(np.diff(shown)).max() < 0.6


@pytest.mark.parametrize(
    "box",
    [
        Box(x0=10, y0=10, x1=10, y1=20),
        Box(x0=10, y0=20, x1=20, y1=10),
        Box(x0=320, y0=0, x1=330, y1=10),
        Box(x0=-20, y0=0, x1=0, y1=10),
        Box(x0=0, y0=240, x1=10, y1=250),
        Box(x0=float("nan"), y0=0, x1=5, y1=5),
        Box(x0=0, y0=0, x1=float("inf"), y1=5),
        Box(x0=-1e308, y0=-1e308, x1=1e308, y1=1e308),
        Box(x0=-1e9, y0=-1e9, x1=1e9, y1=1e9),
    ],
)
def test_boxes_without_a_face_are_refused(box):
    with pytest.raises(DegenerateFaceError, match="expected a"):
        _square(box)


@pytest.mark.parametrize(
    ("landmarks", "message"),
    [
        (np.zeros((5, 2), np.float32), "eyes at least 1 pixel apart, got 0"),
        (np.full((5, 2), np.nan, np.float32), "5 finite landmarks"),
        (np.zeros((4, 2), np.float32), "5 finite landmarks"),
        (_face([(1000, 100), (1044, 100)], (1022, 150)), "inside 0 to 320"),
        (_face([(-2e4, 100), (2e4, 100)], (0, 150)), "a face of at most"),
        (_face([(102.276, 100), (97.724, 100)], (100, 109.2)), "landmarks that contradict each other"),
    ],
)
def test_landmarks_without_a_face_are_refused(landmarks, message):
    with pytest.raises(DegenerateFaceError, match=message):
        align_by_landmarks(NOISE, landmarks, **TEMPLATE)


def test_an_empty_picture_holds_no_face():
    with pytest.raises(DegenerateFaceError, match="expected a box that meets the picture of 0 x 0"):
        align_by_box(np.zeros((0, 0, 3), np.uint8), Box(x0=0, y0=0, x1=1, y1=1), size_px=48, scale=1.0)


def test_between_is_halfway_and_turned_as_the_landmarks_say():
    box, landmarks = Square(100 + 100j, 40 + 0j), Square(110 + 104j, 90j)
    middle = between(box, landmarks)
    assert middle.centre == 105 + 102j
    assert middle.edge == pytest.approx(60j)  # the geometric mean of 40 and 90
    assert between(landmarks, landmarks) == landmarks
