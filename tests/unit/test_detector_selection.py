from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from ferserve.faces.detectors.decoding import Candidates
from ferserve.training.data.expw_scenes import Photo
from ferserve.training.detector.geometry import cell_grid, encode
from ferserve.training.detector.selection import CANDIDATE_SCORES, Selection

SIDE = 128
GRID = cell_grid(SIDE, SIDE)
FACE = np.array([[16, 16, 56, 56]], np.float32)
OTHER = np.array([[70, 70, 110, 110]], np.float32)
POINTS = np.array([[[28, 30], [44, 30], [36, 38], [30, 46], [42, 46]]], np.float32)


class Teacher:
    """Finds the one labelled face."""

    def faces(self, image, *, min_score):
        assert min_score == 0.6
        assert image.shape[0] % 32 == image.shape[1] % 32 == 0
        return Candidates(boxes=FACE, scores=np.array([0.9], np.float32), landmarks=POINTS)


class FixedNet(nn.Module):
    """Says of every picture that there is the face, and another thing, with these scores."""

    def __init__(self, face_score, other_score):
        super().__init__()
        self.device_mark = nn.Parameter(torch.zeros(1))
        numbers = np.full((len(GRID), 16), -9, np.float32)
        rows = np.array([40, 150])
        # cls and obj alike, so that their geometric mean is the score.
        numbers[rows, :2] = np.log([[score / (1 - score)] for score in (face_score, other_score)])
        numbers[rows, 2:] = encode(np.concatenate((FACE, OTHER)), np.concatenate((POINTS, POINTS + 50)), GRID[rows])
        self.levels = [torch.from_numpy(numbers[None, GRID[:, 2] == stride]) for stride in (8, 16, 32)]

    def forward(self, _pictures):
        return self.levels


@pytest.fixture
def selection(tmp_path):
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), np.zeros((SIDE, SIDE, 3), np.uint8))
    return Selection.prepare(
        [Photo(name="a.png", path=path, labelled=FACE, expressions=np.zeros(len(FACE), np.int64))], Teacher()
    )


def test_a_small_photo_is_one_exam(selection):
    assert len(selection.exams) == 1


def test_the_check_is_against_the_teacher(selection):
    sure = selection.check(FixedNet(0.8, 0.7))
    assert (sure.recall, sure.unmatched_per_photo) == (1.0, 1.0)
    assert sure.landmark_error == pytest.approx(0.0, abs=1e-5)
    blind = selection.check(FixedNet(0.4, 0.3))
    assert (blind.recall, blind.unmatched_per_photo, blind.landmark_error) == (0.0, 0.0, 1.0)


def test_the_threshold_lies_just_above_what_is_no_face(selection):
    assert selection.threshold(FixedNet(0.8, 0.433)) == 0.44
    assert selection.threshold(FixedNet(0.8, 0.1)) == CANDIDATE_SCORES[0]
    assert selection.threshold(FixedNet(0.8, 0.95)) == CANDIDATE_SCORES[-1]


class AnyFace(FixedNet):
    """Finds the other thing in small pictures alone."""

    def forward(self, pictures):
        return self.levels if pictures.shape[-1] < 160 else [torch.full_like(level, -9) for level in self.levels]


def test_the_threshold_holds_at_each_size(selection):
    first = selection.exams[0]
    large = replace(first, image=np.zeros((SIDE, 256, 3), np.uint8), size_px=320)
    # The teacher leaves two there, more than the net leaves at both sizes together.
    two = Candidates(
        boxes=np.concatenate((OTHER, OTHER + 1)),
        scores=np.array([0.9, 0.8], np.float32),
        landmarks=np.concatenate((POINTS, POINTS)),
    )
    selection.exams.append(replace(large, reference=two))
    assert selection.threshold(AnyFace(0.8, 0.433)) == 0.44
