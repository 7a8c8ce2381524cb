import numpy as np
import pytest

from ferserve.training.detector.assignment import assign, missed, targets
from ferserve.training.detector.geometry import NUMBERS, cell_grid, encode
from ferserve.training.detector.recipe import ferdet

GRID = cell_grid(128, 128)
POINTS = np.full((1, 5, 2), 40, np.float32)


def _box(x, y, side):
    return np.array([[x - side / 2, y - side / 2, x + side / 2, y + side / 2]], np.float32)


def _answering(boxes):
    answers = assign(boxes, GRID)
    return {tuple(GRID[index].astype(int).tolist()): int(answers[index]) for index in np.flatnonzero(answers >= 0)}


def test_a_small_face_is_answered_for_by_the_cells_around_its_centre():
    # Corners at 32 and 40 lie within 8 pixels of (36, 36); 24 and 48 do not.
    assert _answering(_box(36, 36, 30)) == {(4, 4, 8): 0, (5, 4, 8): 0, (4, 5, 8): 0, (5, 5, 8): 0}


def test_a_cell_outside_a_tiny_face_does_not_answer():
    # Of the corners at 32 and 40, only 40 lies within 4 pixels of 39.
    assert _answering(_box(39, 39, 8)) == {(5, 5, 8): 0}


def test_a_large_face_belongs_to_the_coarse_stride():
    assert set(_answering(_box(70, 70, 100))) == {(2, 2, 32), (3, 2, 32), (2, 3, 32), (3, 3, 32)}


def test_the_nearest_centre_wins():
    boxes = np.concatenate((_box(36, 36, 30), _box(44, 36, 30)))
    answers = _answering(boxes)
    assert answers[4, 4, 8] == 0
    assert answers[6, 4, 8] == 1


def test_no_face_no_answer():
    assert (assign(np.zeros((0, 4), np.float32), GRID) == -1).all()


@pytest.fixture
def silent():
    return np.zeros((len(GRID), NUMBERS), np.float32)


def test_a_face_that_the_teacher_missed_is_taught_exactly(silent):
    objective = ferdet().objective
    box = _box(36, 36, 30)
    aims = targets(silent, box, POINTS, GRID, objective)
    cells = np.flatnonzero(aims[:, 0])
    assert aims[cells, 0] == pytest.approx([objective.exact_score] * 4)
    assert aims[cells, 1:] == pytest.approx(encode(np.repeat(box, 4, 0), np.repeat(POINTS, 4, 0), GRID[cells]))
    assert not silent.any()


def test_a_face_that_the_teacher_found_is_left_to_it(silent):
    sure = silent.copy()
    cell = 5 * 16 + 5
    sure[cell, 0] = 0.8
    sure[cell, 1:] = encode(_box(37, 36, 30), POINTS, GRID[[cell]])[0]
    box = _box(36, 36, 30)
    assert missed(sure, box, GRID, below=0.5).tolist() == [False]
    assert (targets(sure, box, POINTS, GRID, ferdet().objective) == sure).all()
    assert missed(sure, box, GRID, below=0.9).tolist() == [True]
    assert missed(sure, _box(90, 90, 30), GRID, below=0.5).tolist() == [True]


def test_maps_of_another_picture_are_refused(silent):
    with pytest.raises(ValueError, match=r"teacher: expected maps of shape \(336, 15\), got \(335, 15\)"):
        targets(silent[1:], _box(36, 36, 30), POINTS, GRID, ferdet().objective)
