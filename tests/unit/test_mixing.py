"""Mixup: who is blended with whom, and what is to be said of the blend."""

from dataclasses import replace

import pytest
import torch

from ferserve.training.calibrate import identity_scaling
from ferserve.training.losses.soft import UNLABELLED
from ferserve.training.mixing import Mixing
from ferserve.training.objective import FitLoss
from ferserve.training.recipes.mobilenet import mobilenet
from ferserve.training.teachers import RunTeacher

SETTINGS = replace(mobilenet().objective, vote_head_weight=0.0, teacher_weight=0.5)
VIEWS = torch.zeros(3, 1, 4, 4)
VOTES = torch.zeros(3, 7)
SWAPPED = Mixing(partner_N=torch.tensor([1, 0, 2]), share_N=torch.tensor([0.75, 1.0, 1.0]))


class Third(torch.nn.Module):
    """Says class 2 of every face."""

    def forward(self, x):
        return 100.0 * torch.eye(7)[2].expand(len(x), 7), None


def _loss(settings=SETTINGS):
    teacher = RunTeacher(net=Third(), size_px=4, scaling=identity_scaling(7), recipe_sha256="0" * 64)
    return FitLoss(settings, [teacher], num_features=8)


def _draw(count, probability, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return Mixing.draw(count, probability=probability, generator=generator, device=torch.device("cpu"))


def test_a_blend_is_of_the_face_and_its_partner_in_their_shares():
    values = torch.tensor([[1.0, 0.0], [0.0, 1.0], [5.0, 5.0]])
    assert SWAPPED.blend(values).tolist() == [[0.75, 0.25], [0.0, 1.0], [5.0, 5.0]]
    pictures = torch.arange(3.0).view(3, 1, 1, 1).expand(3, 1, 2, 2)
    assert SWAPPED.blend(pictures)[0].unique().tolist() == [0.25]


def test_as_many_are_blended_as_asked_and_every_share_is_as_likely():
    drawn = _draw(20_000, 0.5)
    mixed = drawn.share_N < 1.0
    assert mixed.float().mean().item() == pytest.approx(0.5, abs=0.02)
    assert torch.histc(drawn.share_N[mixed], 4, 0.0, 1.0).div(mixed.sum()).sub(0.25).abs().max() < 0.02
    assert torch.equal(drawn.partner_N.sort().values, torch.arange(20_000))
    assert (_draw(100, 0.0).share_N == 1.0).all()
    assert torch.equal(drawn.share_N, _draw(20_000, 0.5).share_N)


def test_labels_are_blended_as_the_views_are():
    targets = _loss().targets(VIEWS, torch.tensor([0, 3, 5]), VOTES, mixing=SWAPPED)
    assert targets[0].tolist() == pytest.approx([0.375, 0, 0.5, 0.125, 0, 0, 0])
    assert targets[1].tolist() == pytest.approx([0, 0, 0.5, 0.5, 0, 0, 0])


def test_what_teachers_said_of_whole_crops_is_blended_too():
    taught = torch.eye(7)[:3]
    targets = _loss(replace(SETTINGS, teacher_weight=1.0)).targets(
        VIEWS, torch.tensor([0, 3, 5]), VOTES, taught_NK=taught, mixing=SWAPPED
    )
    assert targets[0].tolist() == pytest.approx([0.75, 0.25, 0, 0, 0, 0, 0])


def test_of_a_face_without_a_label_the_teachers_alone_speak():
    labels = torch.tensor([0, UNLABELLED, UNLABELLED])
    alone = _loss().targets(VIEWS, labels, VOTES)
    assert alone[0].tolist() == pytest.approx([0.5, 0, 0.5, 0, 0, 0, 0])
    assert torch.allclose(alone[1:], torch.eye(7)[[2, 2]])
    # A quarter of the first is a face that nobody labelled.
    assert _loss().targets(VIEWS, labels, VOTES, mixing=SWAPPED)[0].tolist() == pytest.approx(torch.eye(7)[2].tolist())


def test_the_vote_head_learns_nothing_from_faces_without_a_label():
    loss = _loss(replace(SETTINGS, vote_head_weight=1.0)).eval()
    features, votes = torch.ones(3, 8), torch.zeros(3, 7).index_fill_(1, torch.tensor([4]), 10.0)
    value = loss(VIEWS, torch.zeros(3, 7), features, torch.full((3,), UNLABELLED), votes)
    value.backward()
    assert loss.vote_head[1].weight.grad.abs().max() == 0
    known = loss(VIEWS, torch.zeros(3, 7), features, torch.zeros(3, dtype=torch.int64), votes)
    known.backward()
    assert loss.vote_head[1].weight.grad.abs().max() > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: replace(r, objective=replace(r.objective, teacher_weight=0.0)), "unlabelled: expected none without"),
        (lambda r: replace(r, objective=replace(r.objective, center_weight=0.1)), "center_weight: expected 0 beside"),
        (lambda r: replace(r.augmentation, mixup=1.5), "mixup: expected 0 to 1"),
    ],
)
def test_recipes_that_cannot_be_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        change(mobilenet())
