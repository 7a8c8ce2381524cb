"""What a detector's maps lose against soft targets. Everything in float32 whatever the precision of the maps.

Shapes: N pictures, A cells; of fifteen numbers a cell the first is the score (a logit in the student's maps), four are
the box, ten the landmarks (see `detector.geometry`).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ferserve.training.detector.recipe import DetectionObjective

MAX_LOG_SIZE = 6.0
"""A box of e^6 cells is larger than any training picture, one of e^-6 smaller than any pixel; without bounds a wild
start overflows, or has no area."""
MIN_EYE_SHARE = 0.1


def quality_focal(logits: Tensor, target: Tensor, *, gamma: float) -> Tensor:
    """Quality focal loss (Li et al. 2020, Generalized Focal Loss, equation 5), one value an element.

    |t - s|^gamma * BCE(s, t) with s = sigmoid(logit).

    Args:
        target: t, 0 to 1.
    """
    distance = (target - torch.sigmoid(logits)).abs()
    cross = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return distance.pow(gamma) * cross


def boxes_of(numbers: Tensor, grid_A3: Tensor) -> Tensor:
    """Boxes x0, y0, x1, y1 in pixels, (..., 4), of the four box numbers of each cell, (..., 4)."""
    stride = grid_A3[..., 2:]
    centre = (grid_A3[..., :2] + numbers[..., :2]) * stride
    half = numbers[..., 2:].clamp(-MAX_LOG_SIZE, MAX_LOG_SIZE).exp() * stride / 2
    return torch.cat((centre - half, centre + half), dim=-1)


def distance_iou(first: Tensor, second: Tensor) -> Tensor:
    """Distance-IoU loss (Zheng et al. 2020, equation 7): 1 - IoU + d^2 / c^2.

    d lies between the centres, c is the diagonal of the smallest box around both.

    Args:
        first, second: boxes (..., 4), each with an area.
    """
    low, high = torch.maximum(first[..., :2], second[..., :2]), torch.minimum(first[..., 2:], second[..., 2:])
    shared = (high - low).clamp(min=0).prod(dim=-1)
    areas = [(boxes[..., 2:] - boxes[..., :2]).prod(dim=-1) for boxes in (first, second)]
    overlap = shared / (areas[0] + areas[1] - shared)
    outer_low, outer_high = (
        torch.minimum(first[..., :2], second[..., :2]),
        torch.maximum(first[..., 2:], second[..., 2:]),
    )
    diagonal = (outer_high - outer_low).square().sum(dim=-1)
    apart = (first[..., :2] + first[..., 2:] - second[..., :2] - second[..., 2:]).square().sum(dim=-1) / 4
    return 1.0 - overlap + apart / diagonal


def landmark_distance(points: Tensor, target: Tensor, grid_A3: Tensor, boxes: Tensor) -> Tensor:
    """Mean absolute error of ten coordinates as a share of the target's eye distance, (...), as detectors are judged.

    Args:
        points, target: the ten landmark numbers of each cell, (..., 10).
        boxes: the target's, in pixels, (..., 4); of a profile, whose eyes nearly coincide, `MIN_EYE_SHARE` of their
            mean side stands for the eye distance.
    """
    stride = grid_A3[..., 2]
    side = (boxes[..., 2:] - boxes[..., :2]).prod(dim=-1).clamp(min=1e-6).sqrt()
    eyes = (target[..., :2] - target[..., 2:4]).norm(dim=-1) * stride
    return (points - target).abs().mean(dim=-1) * stride / torch.maximum(eyes, MIN_EYE_SHARE * side)


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectionLosses:
    """Scalars: the parts unweighted, and the whole objective."""

    score: Tensor
    order: Tensor
    box: Tensor
    landmarks: Tensor
    total: Tensor


def detection_losses(
    maps_NAK: Tensor, targets_NAK: Tensor, grid_A3: Tensor, objective: DetectionObjective
) -> DetectionLosses:
    """The whole objective of a batch; each part is divided by the sum of the target scores that take part in it.

    Every cell is computed and those that teach nothing weigh nothing: no shape depends on the data, which a GPU would
    have to wait for.

    Args:
        maps_NAK: the student's, K = 15, the score as a logit.
        targets_NAK: K = 15, the score 0 to 1.
    """
    maps_NAK = maps_NAK.float()
    logit, aim = maps_NAK[..., 0], targets_NAK[..., 0]
    weight = aim * (aim >= objective.min_target)
    mass = weight.sum().clamp(min=1.0)
    score = quality_focal(logit, aim, gamma=objective.focal_gamma).sum() / mass
    order = (weight * (torch.sigmoid(logit) - aim).abs()).sum() / mass
    boxes = boxes_of(targets_NAK[..., 1:5], grid_A3)
    box = (weight * distance_iou(boxes_of(maps_NAK[..., 1:5], grid_A3), boxes)).sum() / mass
    distance = landmark_distance(maps_NAK[..., 5:], targets_NAK[..., 5:], grid_A3, boxes)
    landmarks = (weight * distance).sum() / mass
    total = score + objective.order_weight * order + objective.box_weight * box + objective.landmark_weight * landmarks
    return DetectionLosses(score=score, order=order, box=box, landmarks=landmarks, total=total)
