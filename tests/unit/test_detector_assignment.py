from dataclasses import replace

import numpy as np
import pytest

from ferserve.training.detector.assignment import assign, seen_by, targets
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


@pytest.fixture
def sure(silent):
    """Two cells of the teacher have nearly the same face."""
    maps = silent.copy()
    for cell, score in ((5 * 16 + 5, 0.6), (5 * 16 + 4, 0.3)):
        maps[cell, 0] = score
        maps[cell, 1:] = encode(_box(37, 36, 30), POINTS, GRID[[cell]])[0]
    return maps


def test_cells_see_the_faces_whose_box_they_have(sure):
    cells, scores = seen_by(sure, np.concatenate((_box(36, 36, 30), _box(90, 90, 30))), GRID)
    assert cells.tolist() == [5 * 16 + 4, 5 * 16 + 5]
    assert scores == pytest.approx(np.array([[0.3, 0], [0.6, 0]]))


@pytest.mark.parametrize(
    ("settings", "scores"),
    [
        ({"missed_below": 0.5, "raised_score": 0.0}, [0.3, 0.6]),
        ({"missed_below": 0.5, "raised_score": 0.5}, [0.3, 0.6]),
        ({"missed_below": 0.5, "raised_score": 0.8}, [0.4, 0.8]),
        # Taken for missed: all four cells around its centre learn it.
        ({"missed_below": 0.7, "raised_score": 0.8, "exact_score": 0.85}, [0.85, 0.85]),
    ],
    ids=["left", "sure enough", "raised", "missed"],
)
def test_a_face_that_the_teacher_found_keeps_its_box_and_the_order_of_its_cells(sure, settings, scores):
    aims = targets(sure, _box(36, 36, 30), POINTS, GRID, replace(ferdet().objective, **settings))
    assert aims[[5 * 16 + 4, 5 * 16 + 5], 0] == pytest.approx(scores)
    kept = (aims[:, 1:] == sure[:, 1:]).all()
    assert kept == (scores[0] != scores[1])


def test_maps_of_another_picture_are_refused(silent):
    with pytest.raises(ValueError, match=r"teacher: expected maps of shape \(336, 15\), got \(335, 15\)"):
        targets(silent[1:], _box(36, 36, 30), POINTS, GRID, ferdet().objective)
