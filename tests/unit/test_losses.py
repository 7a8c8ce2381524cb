import pytest
import torch

from ferserve.training.losses.center import CenterLoss
from ferserve.training.losses.soft import blend_targets, soft_cross_entropy


def test_center_loss_by_hand():
    loss = CenterLoss(num_classes=2, num_features=2, rate=0.5)
    loss.centers_KD.copy_(torch.tensor([[0.0, 0.0], [1.0, 1.0]]))
    features = torch.tensor([[3.0, 4.0], [1.0, 3.0]], requires_grad=True)
    value = loss(features, torch.tensor([0, 1]))
    # 1/2 * mean(25, 4)
    assert value.item() == pytest.approx(7.25)
    value.backward()
    # d/dx = (x - c) / N
    assert torch.allclose(features.grad, torch.tensor([[1.5, 2.0], [0.0, 1.0]]))


def test_center_update_by_hand():
    loss = CenterLoss(num_classes=2, num_features=1, rate=0.5)
    loss.centers_KD.copy_(torch.tensor([[1.0], [5.0]]))
    loss.update(torch.tensor([[2.0], [4.0]]), torch.tensor([0, 0]))
    # delta_0 = ((1 - 2) + (1 - 4)) / (1 + 2) = -4/3; c_0 = 1 + 0.5 * 4/3; class 1 was not in the batch.
    assert loss.centers_KD[:, 0].tolist() == pytest.approx([1 + 2 / 3, 5.0])


def test_center_rate_is_checked():
    with pytest.raises(ValueError, match=r"rate must be 0 to 1, got 1\.5"):
        CenterLoss(num_classes=2, num_features=1, rate=1.5)


def test_soft_cross_entropy_equals_the_hard_one_on_onehot_targets():
    logits = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    label = torch.tensor([0, 3, 6, 2, 2])
    onehot = torch.nn.functional.one_hot(label, 7).float()
    expected = torch.nn.functional.cross_entropy(logits, label)
    assert soft_cross_entropy(logits, onehot).item() == pytest.approx(expected.item(), rel=1e-6)


def test_targets_blend_label_votes_and_smoothing():
    votes = torch.zeros(2, 7)
    votes[0, 3], votes[0, 6] = 3, 1
    target = blend_targets(torch.tensor([6, 1]), votes, vote_weight=0.4, smoothing=0.07)
    # Row 0: 0.93 * (0.6 * [6] + 0.4 * (0.75 * [3] + 0.25 * [6])) + 0.01
    assert target[0, 6].item() == pytest.approx(0.93 * 0.7 + 0.01)
    assert target[0, 3].item() == pytest.approx(0.93 * 0.3 + 0.01)
    # Row 1 has no votes: the hard label stands.
    assert target[1, 1].item() == pytest.approx(0.93 + 0.01)
    assert torch.allclose(target.sum(dim=1), torch.ones(2))
