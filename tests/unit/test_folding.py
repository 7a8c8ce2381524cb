"""Nets whose batch norms fold away: what is left is the net that the paper prints, and computes the same."""

from collections.abc import Callable

import pytest
import torch

from ferserve.training.models.alexnet import CaffeNet
from ferserve.training.models.net import ExpressionNet
from ferserve.training.models.net_b import NetB

NETS: dict[str, Callable[[bool], ExpressionNet]] = {
    "Net B": lambda normed: NetB(size_px=48, normed=normed),
    "Net B + DAL": lambda normed: NetB("groups", size_px=48, normed=normed),
    "CaffeNet": lambda normed: CaffeNet(size_px=64, stem_stride=2, normed=normed),
    "CaffeNet, four layers": lambda normed: CaffeNet(size_px=64, stem_stride=2, layers=4, normed=normed),
}
SIZE_PX = {"Net B": 48, "Net B + DAL": 48, "CaffeNet": 64, "CaffeNet, four layers": 64}


@torch.no_grad()
@pytest.mark.parametrize("name", NETS)
def test_folding_the_norms_leaves_the_printed_net(name):
    torch.manual_seed(0)
    net = NETS[name](True)
    crops = torch.randn(8, 1, SIZE_PX[name], SIZE_PX[name])
    net.train()(crops)  # moves the statistics
    for module in net.modules():
        if isinstance(module, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)):
            module.weight.uniform_(0.5, 1.5)
            module.bias.normal_()
    net.eval()
    before, _ = net(crops)
    net.fold_norms()
    assert net.state_dict().keys() == NETS[name](False).state_dict().keys()
    assert torch.allclose(net(crops)[0], before, rtol=1e-4, atol=1e-4)
