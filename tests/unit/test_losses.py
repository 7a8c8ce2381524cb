import pytest
import torch

from ferserve.training.losses.center import CenterLoss
from ferserve.training.losses.soft import blend_targets, soft_cross_entropy
from ferserve.training.losses.softmax_mse import cross_entropy_and_mse, softmax_mse


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


LOGITS = torch.randn(5, 7, generator=torch.Generator().manual_seed(1))
LABEL = torch.tensor([0, 3, 6, 2, 2])
ONEHOT = torch.nn.functional.one_hot(LABEL, 7).float()


def test_softmax_mse_reports_the_squared_error_of_the_class_number():
    # Scores (1/2, 1/2) of classes 0 and 1, and a sure class 1: expected classes 0.5 and 1, labels 1 and 0.
    logits = torch.tensor([[0.0, 0.0], [-100.0, 100.0]])
    target = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    assert softmax_mse(logits, target).item() == pytest.approx((0.25 + 1.0) / 2)


def test_softmax_mse_has_the_gradient_of_cross_entropy():
    defined, usual = LOGITS.clone().requires_grad_(), LOGITS.clone().requires_grad_()
    (3.0 * softmax_mse(defined, ONEHOT)).backward()
    (3.0 * torch.nn.functional.cross_entropy(usual, LABEL)).backward()
    assert torch.allclose(defined.grad, usual.grad, atol=1e-7)
    # p_i - [i = y], over n (S1, eq. 4).
    by_hand = (torch.softmax(LOGITS, dim=1) - ONEHOT) / 5
    assert torch.allclose(defined.grad, 3.0 * by_hand, atol=1e-7)


def test_softmax_mse_takes_distributions_too():
    target = torch.softmax(torch.randn(5, 7, generator=torch.Generator().manual_seed(2)), dim=1)
    defined, usual = LOGITS.clone().requires_grad_(), LOGITS.clone().requires_grad_()
    softmax_mse(defined, target).backward()
    soft_cross_entropy(usual, target).backward()
    assert torch.allclose(defined.grad, usual.grad, atol=1e-7)


def test_cross_entropy_and_mse_has_the_true_gradient_of_both():
    logits = LOGITS.double().requires_grad_()
    loss = cross_entropy_and_mse(logits, ONEHOT.double(), weight=0.3)
    score = torch.softmax(LOGITS, dim=1)
    squared = ((score @ torch.arange(7.0)) - LABEL).square().mean()
    expected = torch.nn.functional.cross_entropy(LOGITS, LABEL) + 0.3 * squared
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    loss.backward()
    step = torch.zeros_like(logits)
    step[1, 4] = 1e-2
    with torch.no_grad():
        up = cross_entropy_and_mse(logits + step, ONEHOT.double(), weight=0.3)
        down = cross_entropy_and_mse(logits - step, ONEHOT.double(), weight=0.3)
    assert logits.grad[1, 4].item() == pytest.approx((up - down).item() / 2e-2, rel=1e-3)
