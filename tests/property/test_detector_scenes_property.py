import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ferserve.training.detector.crops import FaceCrop
from ferserve.training.detector.geometry import cell_grid, decode_boxes, encode
from ferserve.training.detector.recipe import ferdet
from ferserve.training.detector.views import Studio

CROP = FaceCrop(
    image=np.full((112, 112, 3), 128, np.uint8),
    box=np.array([30, 20, 80, 90], np.float32),
    landmarks=np.array([[45, 45], [65, 45], [55, 60], [45, 72], [65, 72]], np.float32),
)
STUDIO = Studio([], [CROP], ferdet().scenes)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), size_px=st.sampled_from([96, 160, 320]), count=st.integers(0, 12))
def test_every_exact_face_lies_inside_with_its_landmarks(seed, size_px, count):
    scene = STUDIO.compose(np.random.default_rng(seed), height_px=size_px, width_px=size_px, count=count)
    assert len(scene.boxes) <= count
    assert scene.boxes.shape[1:] == (4,)
    assert scene.landmarks.shape == (len(scene.boxes), 5, 2)
    boxes, points = scene.boxes[scene.exact], scene.landmarks[scene.exact]
    assert (boxes >= 0).all()
    assert (boxes <= size_px).all()
    assert ((boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=12) >= 12).all()
    assert (points >= boxes[:, None, :2] - 1).all()
    assert (points <= boxes[:, None, 2:] + 1).all()


@given(
    cell=st.integers(0, len(cell_grid(96, 64)) - 1),
    corner=st.tuples(st.floats(-50, 100), st.floats(-50, 100)),
    size=st.tuples(st.floats(2, 400), st.floats(2, 400)),
)
def test_boxes_come_back_from_their_numbers(cell, corner, size):
    box = np.array([[*corner, corner[0] + size[0], corner[1] + size[1]]], np.float32)
    cells = cell_grid(96, 64)[[cell]]
    numbers = encode(box, np.zeros((1, 5, 2), np.float32), cells)
    np.testing.assert_allclose(decode_boxes(numbers, cells), box, atol=0.01)
