"""Every architecture gives the same scores in eager torch, as an exported program and in ONNX Runtime."""

import numpy as np
import pytest
import torch
from torch import nn

from ferserve.faces.session import ScoringSession
from ferserve.training.calibrate import Scaling
from ferserve.training.export import ScoringGraph, export_onnx, export_program, round_weights
from ferserve.training.models.registry import ARCHITECTURES
from ferserve.training.pack import check_parity

CROP_SHAPE = (48, 48, 1)
SIZES_PX = {"caffenet": 96, "caffenet_four_layers": 96}
"""Else 64 px."""
SCORING = [name for name in ARCHITECTURES if name != "caffenet_attributes"]


def _graph(name):
    torch.manual_seed(0)
    size_px = SIZES_PX.get(name, 64)
    net = ARCHITECTURES[name](1, size_px, 7)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.normal_(module.bias, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    net.eval().fold_norms()
    round_weights(net)
    # Untrained nets answer evenly whatever they see; a head of the right size makes scores differ.
    with torch.no_grad():
        logits, _ = net(torch.rand(8, 1, size_px, size_px) * 2 - 1)
        net.get_submodule(net.classifier_name).weight.mul_(2.0 / logits.std())
    return ScoringGraph(net, size_px=size_px, scaling=Scaling(temperature=1.5, bias=(0.1, 0, 0, 0, -0.1, 0, 0))).eval()


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.long] if name == "transfer_resnet152" else []) for name in SCORING]
)
def test_eager_program_and_onnx_agree(name):
    graph = _graph(name)
    crops = np.random.default_rng(0).integers(0, 256, (5, *CROP_SHAPE), dtype=np.uint8)
    with torch.no_grad():
        scores = graph(torch.from_numpy(crops)).numpy()
    assert np.ptp(scores, axis=1).min() > 0.01
    onnx, program = export_onnx(graph, crop_shape=CROP_SHAPE), export_program(graph, crop_shape=CROP_SHAPE)
    session = ScoringSession(onnx, crop_shape=CROP_SHAPE, threads=1)
    check_parity(graph, program, session, crops)
    check_parity(graph, program, session, crops[:1])
