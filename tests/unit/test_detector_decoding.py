import numpy as np
import pytest

from ferserve.faces.detectors.decoding import OUTPUTS, Candidates, decode
from ferserve.faces.detectors.nms import suppress

SIDES_PX = (64, 32)
"""Width and height: grids of 8 x 4, 4 x 2 and 2 x 1 cells."""


@pytest.fixture
def outputs():
    width, height = SIDES_PX
    return {
        name: np.zeros((1, (width // stride) * (height // stride), numbers), np.float32)
        for name, (stride, numbers) in OUTPUTS.items()
    }


def sure(outputs, stride, cell, *, cls=1.0, obj=1.0, bbox=(0.5, 0.5, 0.0, 0.0), kps=(0.0,) * 10):
    for kind, value in {"cls": cls, "obj": obj, "bbox": bbox, "kps": kps}.items():
        outputs[f"{kind}_{stride}"][0, cell] = value


def found(outputs, *, min_score=0.5):
    return decode(outputs, columns_px=SIDES_PX[0], min_score=min_score)


def test_a_cell_decodes_as_by_hand(outputs):
    # Stride 8, eight cells a row: cell 19 is column 3 of row 2.
    sure(
        outputs, 8, 19, cls=0.9, obj=0.4, bbox=(0.25, 1.5, np.log(2), np.log(3)), kps=[0, 0, 1, 0, 0.5, 0.5, 0, 2, 1, 2]
    )
    faces = found(outputs)
    assert faces.scores.tolist() == pytest.approx([0.6])  # sqrt(0.9 * 0.4)
    # Centre ((3 + 0.25) * 8, (2 + 1.5) * 8) = (26, 28), size (16, 24).
    np.testing.assert_allclose(faces.boxes, [[18, 16, 34, 40]], rtol=1e-6)
    np.testing.assert_allclose(faces.landmarks, [[[24, 16], [32, 16], [28, 20], [24, 32], [32, 32]]], rtol=1e-6)


def test_each_stride_has_its_own_grid(outputs):
    sure(outputs, 8, 8)  # column 0 of row 1
    sure(outputs, 16, 7)  # four cells a row: column 3 of row 1
    sure(outputs, 32, 1)  # two cells a row: column 1 of row 0
    boxes = found(outputs).boxes
    np.testing.assert_allclose(boxes, [[0, 8, 8, 16], [48, 16, 64, 32], [32, 0, 64, 32]])


def test_scores_are_clamped_before_they_are_multiplied(outputs):
    sure(outputs, 8, 0, cls=7.0, obj=0.49)
    sure(outputs, 8, 1, cls=-1.0, obj=-1.0)  # would be 1 without the clamp
    assert found(outputs).scores.tolist() == pytest.approx([0.7])


def test_the_threshold_is_of_the_score_and_inclusive(outputs):
    sure(outputs, 8, 0, cls=0.25, obj=1.0)
    assert len(found(outputs, min_score=0.5)) == 1
    assert len(found(outputs, min_score=0.51)) == 0


@pytest.mark.parametrize(
    "broken",
    [
        {"cls": np.nan},
        {"bbox": (np.nan, 0, 0, 0)},
        {"bbox": (np.inf, 0, 0, 0)},
        {"bbox": (0, 0, -np.inf, 0)},
        {"bbox": (1e7, 0, -30, 0)},  # so far away that its width is lost in rounding
        {"kps": (np.inf,) * 10},
    ],
)
def test_what_is_no_box_is_left_out(outputs, broken):
    sure(outputs, 8, 4)
    sure(outputs, 8, 9, **broken)
    np.testing.assert_allclose(found(outputs).boxes, [[32, 0, 40, 8]])


def test_a_huge_size_stays_finite(outputs):
    sure(outputs, 8, 0, bbox=(0, 0, 1e9, 1e9))
    faces = found(outputs)
    assert len(faces) == 1
    assert np.isfinite(faces.boxes).all()


def test_nothing_is_nothing_all_the_way(outputs):
    faces = found(outputs)
    assert (faces.boxes.shape, faces.scores.shape, faces.landmarks.shape) == ((0, 4), (0,), (0, 5, 2))
    assert faces.suppressed(max_overlap=0.3).detections() == []
    assert len(faces.moved(x_px=1, y_px=1, scale_x=2, scale_y=2)) == 0


def test_moved_then_scaled():
    faces = Candidates(
        boxes=np.array([[0, 0, 10, 20]], np.float32),
        scores=np.array([0.5], np.float32),
        landmarks=np.full((1, 5, 2), 4, np.float32),
    ).moved(x_px=6, y_px=1, scale_x=2, scale_y=3)
    np.testing.assert_allclose(faces.boxes, [[12, 3, 32, 63]])
    np.testing.assert_allclose(faces.landmarks[0], [[20, 15]] * 5)


def test_only_the_best_candidates_compete():
    left = np.arange(0, 4000, 20, dtype=np.float32)
    boxes = np.stack((left, left * 0, left + 10, left * 0 + 10), axis=1)
    scores = np.linspace(0.5, 1, len(left), dtype=np.float32)
    kept = suppress(boxes, scores, max_overlap=0.3, limit=7)
    assert kept.tolist() == list(range(len(left) - 1, len(left) - 8, -1))
