import io

import numpy as np
import onnx
import pytest
import torch

from ferserve.faces.session import RUN_FACES, ScoringSession
from ferserve.training.calibrate import Scaling
from ferserve.training.export import ScoringGraph, export_onnx, export_program, round_weights
from ferserve.training.models.mobilenet import MobileNetV1

CROP_SHAPE = (48, 48, 1)


@pytest.fixture(scope="module")
def graph():
    torch.manual_seed(0)
    net = MobileNetV1()
    net(torch.randn(8, 1, 64, 64))
    net.eval().fold_norms()
    round_weights(net)
    # Untrained nets answer evenly whatever they see; a large head makes scores differ.
    with torch.no_grad():
        net.classifier.weight.mul_(256)
    return ScoringGraph(net, size_px=64, scaling=Scaling(temperature=1.5, bias=(0.5, 0, 0, 0, -0.5, 0, 0))).eval()


@pytest.fixture(scope="module")
def crops():
    return np.random.default_rng(0).integers(0, 256, (19, *CROP_SHAPE), dtype=np.uint8)


def test_onnx_equals_eager_at_every_batch_size(graph, crops):
    data = export_onnx(graph, crop_shape=CROP_SHAPE)
    onnx.checker.check_model(onnx.load_from_string(data))
    session = ScoringSession(data, crop_shape=CROP_SHAPE)
    eager = graph(torch.from_numpy(crops)).detach().numpy()
    assert np.ptp(eager, axis=1).min() > 0.01
    for count in (1, 3, RUN_FACES, RUN_FACES + 1, 2 * RUN_FACES + 3):
        scores = session.score(crops[:count])
        assert np.abs(scores - eager[:count]).max() < 1e-5
    assert eager.sum(axis=1) == pytest.approx(np.ones(len(crops)), abs=1e-5)


def test_program_equals_eager_and_takes_any_batch(graph, crops):
    program = torch.export.load(io.BytesIO(export_program(graph, crop_shape=CROP_SHAPE))).module()
    eager = graph(torch.from_numpy(crops))
    assert torch.allclose(program(torch.from_numpy(crops)), eager, atol=1e-6)
    assert torch.allclose(program(torch.from_numpy(crops[:1])), eager[:1], atol=1e-6)


def test_rounded_weights_fit_into_half(graph):
    for parameter in graph.net.parameters():
        if parameter is not graph.net.classifier.weight:
            assert torch.equal(parameter, parameter.half().float())
