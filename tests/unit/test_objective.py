"""What a fit minimises, on batches small enough to work out by hand."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from ferserve.training.calibrate import Scaling, identity_scaling
from ferserve.training.data.errors import DataError
from ferserve.training.losses.soft import soft_cross_entropy
from ferserve.training.objective import FitLoss
from ferserve.training.recipes.mobilenet import mobilenet
from ferserve.training.teachers import RunTeacher, ensemble_scores

PLAIN = replace(
    mobilenet().objective, vote_weight=0.0, vote_head_weight=0.0, teacher_weight=0.0, smoothing=0.0, center_weight=0.0
)
LABELS = torch.tensor([0, 3])
VOTES = torch.zeros(2, 7).index_fill_(1, torch.tensor([4]), 10.0)
VIEWS = torch.zeros(2, 1, 4, 4)
LOGITS = torch.randn(2, 7, generator=torch.Generator().manual_seed(0))
FEATURES = torch.zeros(2, 1024)


class Sure(nn.Module):
    """Answers with one class, and remembers the side of what it was shown."""

    def __init__(self, top):
        super().__init__()
        self.logits = 100.0 * nn.functional.one_hot(torch.tensor(top), 7).float()
        self.sides = []

    def forward(self, x):
        self.sides.append(x.shape[-1])
        return self.logits.expand(len(x), 7), None


def teacher(top, *, size_px=4, scaling=None):
    return RunTeacher(net=Sure(top), size_px=size_px, scaling=scaling or identity_scaling(7), recipe_sha256="0" * 64)


def fit_loss(settings, teachers=()):
    return FitLoss(settings, teachers, num_features=1024)


def test_alone_it_is_cross_entropy():
    loss = fit_loss(PLAIN)(VIEWS, LOGITS, FEATURES, LABELS, VOTES)
    assert loss.item() == pytest.approx(nn.functional.cross_entropy(LOGITS, LABELS).item(), rel=1e-6)
    assert not list(fit_loss(PLAIN).parameters())


def test_the_vote_head_learns_the_votes_and_leaves_the_classifier_its_labels():
    loss = fit_loss(replace(PLAIN, vote_head_weight=0.5)).eval()
    with torch.no_grad():
        for parameter in loss.parameters():
            parameter.zero_()
    plain = fit_loss(PLAIN)(VIEWS, LOGITS, FEATURES, LABELS, VOTES)
    value = loss(VIEWS, LOGITS, FEATURES, LABELS, VOTES)
    # A head of zeros says 1/7 for each class.
    assert value.item() == pytest.approx(plain.item() + 0.5 * math.log(7), rel=1e-5)
    value.backward()
    bias = loss.vote_head[1].bias.grad
    assert bias.argmin() == 4
    assert bias[4].item() == pytest.approx(0.5 * (1 / 7 - 1), rel=1e-5)


def test_the_center_loss_is_weighted_and_its_centres_move():
    loss = fit_loss(replace(PLAIN, center_weight=0.1, center_rate=0.5))
    features = torch.full((2, 1024), 1.0)
    plain = fit_loss(PLAIN)(VIEWS, LOGITS, features, LABELS, VOTES)
    value = loss(VIEWS, LOGITS, features, LABELS, VOTES)
    assert value.item() == pytest.approx(plain.item() + 0.1 * 512, rel=1e-5)
    # Wen et al., eq. 4: one face of the class, so half the rate of the way.
    assert torch.allclose(loss.center.centers_KD[[0, 3]], torch.tensor(0.25))
    assert loss.center.centers_KD[1].abs().max() == 0


def test_teachers_take_their_share_of_the_target():
    loss = fit_loss(replace(PLAIN, teacher_weight=0.25), [teacher(5), teacher(6)])
    targets = loss.targets(VIEWS, LABELS, VOTES)
    assert targets[0].tolist() == pytest.approx([0.75, 0, 0, 0, 0, 0.125, 0.125])
    assert targets[1].tolist() == pytest.approx([0, 0, 0, 0.75, 0, 0.125, 0.125])
    value = loss(VIEWS, LOGITS, FEATURES, LABELS, VOTES)
    assert value.item() == pytest.approx(soft_cross_entropy(LOGITS, targets).item(), rel=1e-6)
    assert not loss.state_dict().keys() - {"center.centers_KD"}


def test_a_teacher_sees_the_view_at_its_own_side_and_speaks_through_its_scaling():
    large = teacher(1, size_px=8, scaling=Scaling(temperature=100.0, bias=(0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0)))
    scores = large.scores(VIEWS)
    assert large.net.sides == [8]
    total = 2 * math.e + 5
    assert scores[0].tolist() == pytest.approx([1 / total, math.e / total, math.e / total] + [1 / total] * 4, rel=1e-5)
    assert torch.equal(ensemble_scores([large], VIEWS), scores)


@pytest.mark.parametrize(
    ("weight", "teachers", "message"),
    [(0.5, [], "expected a --teacher, got 0"), (0.0, [teacher(0)], "expected no --teacher, got 1")],
)
def test_teachers_must_fit_the_recipe(weight, teachers, message):
    with pytest.raises(DataError, match=message):
        fit_loss(replace(PLAIN, teacher_weight=weight), teachers)
