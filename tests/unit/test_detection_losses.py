import math
from dataclasses import replace

import pytest
import torch

from ferserve.training.detector.recipe import ferdet
from ferserve.training.losses.detection import (
    boxes_of,
    detection_losses,
    distance_iou,
    landmark_distance,
    quality_focal,
)

CELL = torch.tensor([[2.0, 1.0, 8.0]])


def test_quality_focal_by_hand():
    # s = 1/2, t = 1: (1/2)^2 * ln 2; s = t: nothing.
    loss = quality_focal(torch.zeros(2), torch.tensor([1.0, 0.5]), gamma=2.0)
    assert loss.tolist() == pytest.approx([math.log(2) / 4, 0.0])


def test_boxes_by_hand():
    numbers = torch.tensor([[0.5, 1.5, math.log(2), math.log(4)]])
    assert boxes_of(numbers, CELL)[0].tolist() == pytest.approx([12, 4, 28, 36])


def test_distance_iou_by_hand():
    first = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    beside = torch.tensor([[10.0, 0.0, 20.0, 10.0]])
    assert distance_iou(first, first).tolist() == pytest.approx([0.0])
    # No overlap; centres 10 apart, diagonal squared 20^2 + 10^2.
    assert distance_iou(first, beside).tolist() == pytest.approx([1 + 100 / 500])


@pytest.mark.parametrize(("eyes", "unit_px"), [(2.0, 16), (0.25, 4)], ids=["from the front", "a profile"])
def test_landmark_distance_is_relative_to_the_eyes(eyes, unit_px):
    target = torch.zeros(1, 10)
    target[0, 2] = eyes
    box = torch.tensor([[0.0, 0.0, 20.0, 80.0]])
    # Half a cell of 8 pixels; a tenth of the mean side of 40 pixels is the least unit.
    assert landmark_distance(target + 0.5, target, CELL, box).tolist() == pytest.approx([4 / unit_px])


@pytest.fixture
def objective():
    return replace(ferdet().objective, order_weight=5.0, box_weight=2.0, landmark_weight=3.0, min_target=0.1)


def _maps(score, offset):
    maps = torch.zeros(1, 2, 15)
    maps[0, :, 0] = torch.tensor(score)
    maps[0, :, 5:] = offset
    maps[0, :, 7] += 1.0
    return maps


def test_the_whole_objective_weighs_its_parts(objective):
    grid = torch.tensor([[0.0, 0.0, 8.0], [1.0, 0.0, 8.0]])
    losses = detection_losses(_maps([3.0, -3.0], 0.5), _maps([0.8, 0.0], 0.0), grid, objective)
    assert losses.box.item() == pytest.approx(0.0, abs=1e-6)
    # One cell of weight 0.8, divided by at least 1; half a cell against eyes one cell apart.
    assert losses.landmarks.item() == pytest.approx(0.8 * 0.5)
    assert losses.order.item() == pytest.approx(0.8 * (torch.sigmoid(torch.tensor(3.0)).item() - 0.8))
    parts = losses.score + 5 * losses.order + 2 * losses.box + 3 * losses.landmarks
    assert losses.total.item() == pytest.approx(parts.item())


def test_cells_below_the_least_target_teach_no_box(objective):
    grid = torch.tensor([[0.0, 0.0, 8.0], [1.0, 0.0, 8.0]])
    losses = detection_losses(_maps([0.0, 0.0], 9.0), _maps([0.05, 0.0], 0.0), grid, objective)
    assert (losses.order.item(), losses.box.item(), losses.landmarks.item()) == (0.0, 0.0, 0.0)
    assert losses.score.item() > 0


def test_a_wild_box_gives_a_finite_gradient(objective):
    grid = torch.tensor([[0.0, 0.0, 32.0], [1.0, 0.0, 32.0]])
    maps = _maps([0.0, 0.0], 0.0)
    maps[..., 1:5] = 90.0
    maps.requires_grad_()
    detection_losses(maps, _maps([1.0, 1.0], 0.0), grid, objective).total.backward()
    assert torch.isfinite(maps.grad).all()
