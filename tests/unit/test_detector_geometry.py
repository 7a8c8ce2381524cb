import math

import numpy as np
import pytest

from ferserve.faces.detectors.decoding import OUTPUTS, decode
from ferserve.training.detector.geometry import (
    cell_grid,
    decode_boxes,
    encode,
    moved_points,
    overlaps,
    turned_boxes,
)


def test_cells_go_row_by_row_stride_by_stride():
    grid = cell_grid(32, 64)
    assert grid.shape == (8 * 4 + 4 * 2 + 2, 3)
    assert grid[[0, 7, 8, 32, 40, 41]].tolist() == [[0, 0, 8], [7, 0, 8], [0, 1, 8], [0, 0, 16], [0, 0, 32], [1, 0, 32]]


def test_encoding_by_hand():
    cells = np.array([[2, 1, 8]], np.float32)
    points = np.full((1, 5, 2), 20, np.float32)
    numbers = encode(np.array([[12, 4, 28, 36]], np.float32), points, cells)
    # Centre (20, 20) is (2.5, 2.5) cells, size (16, 32) is (2, 4) cells.
    assert numbers[0, :4] == pytest.approx([0.5, 1.5, math.log(2), math.log(4)])
    assert numbers[0, 4:].reshape(5, 2) == pytest.approx(np.tile([0.5, 1.5], (5, 1)))


def test_encoded_faces_are_what_serving_decodes():
    rng = np.random.default_rng(0)
    grid = cell_grid(64, 96)
    rows = np.array([3, 100, len(grid) - 1])
    corner = rng.uniform(0, 40, (3, 2))
    boxes = np.concatenate((corner, corner + rng.uniform(5, 50, (3, 2))), axis=1).astype(np.float32)
    landmarks = rng.uniform(0, 64, (3, 5, 2)).astype(np.float32)
    maps = np.zeros((len(grid), 15), np.float32)
    maps[rows, 0] = (0.9, 0.8, 0.7)
    maps[rows, 1:] = encode(boxes, landmarks, grid[rows])
    kinds = {"cls": slice(0, 1), "obj": slice(0, 1), "bbox": slice(1, 5), "kps": slice(5, 15)}
    outputs = {
        name: maps[grid[:, 2] == stride, kinds[name.split("_")[0]]][None] for name, (stride, _) in OUTPUTS.items()
    }
    found = decode(outputs, columns_px=96, min_score=0.5)
    order = np.argsort(-found.scores)
    assert found.scores[order] == pytest.approx([0.9, 0.8, 0.7])
    assert found.boxes[order] == pytest.approx(boxes, abs=1e-3)
    assert found.landmarks[order] == pytest.approx(landmarks, abs=1e-3)
    assert decode_boxes(maps[rows, 1:5], grid[rows]) == pytest.approx(boxes, abs=1e-3)


def test_overlaps_by_hand():
    first = np.array([[0, 0, 10, 10], [20, 20, 30, 30]], np.float32)
    second = np.array([[5, 0, 15, 10]], np.float32)
    assert overlaps(first, second) == pytest.approx(np.array([[50 / 150], [0]]))
    assert overlaps(first, np.zeros((0, 4), np.float32)).shape == (2, 0)


def test_a_head_turns_as_an_ellipse():
    boxes = np.array([[-10, -20, 10, 20]], np.float32)
    quarter = np.array([[0, -1, 5], [1, 0, 7]], np.float64)
    assert turned_boxes(boxes, quarter)[0] == pytest.approx([5 - 20, 7 - 10, 5 + 20, 7 + 10])
    # At 45 degrees both half axes are sqrt((10^2 + 20^2) / 2), less than the turned box would reach.
    eighth = np.array([[1, -1, 0], [1, 1, 0]], np.float64) / math.sqrt(2)
    assert turned_boxes(boxes, eighth)[0] == pytest.approx(np.array([-1, -1, 1, 1]) * math.sqrt(250))


def test_points_are_moved():
    matrix = np.array([[2, 0, 1], [0, 3, -1]], np.float64)
    assert moved_points(np.array([[1, 1], [0, 2]], np.float32), matrix).tolist() == [[3, 2], [1, 5]]
