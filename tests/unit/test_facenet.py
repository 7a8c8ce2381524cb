import copy

import numpy as np
import onnxruntime as ort
import pytest
import torch

from ferserve.faces.detectors.decoding import OUTPUTS
from ferserve.faces.detectors.onnx import OnnxDetector
from ferserve.training.detector.export import OUTPUT_ORDER, YuNetShape, export_detector
from ferserve.training.models.detector import PRIOR, FaceNet


@pytest.fixture(scope="module")
def net():
    """With statistics that folding has to move."""
    torch.manual_seed(0)
    made = FaceNet()
    for layer in made.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2.0)
            layer.weight.data.uniform_(0.5, 1.5)
            layer.bias.data.normal_()
    for head in made.heads:
        torch.nn.init.normal_(head.weight, std=0.1)
    return made.eval()


@pytest.fixture(scope="module")
def exported(net):
    return export_detector(net, min_score=0.45)


def test_a_fresh_net_says_that_nothing_is_a_face():
    with torch.inference_mode():
        maps = FaceNet().eval()(torch.rand(2, 3, 64, 96) * 255)
    assert [tuple(level.shape) for level in maps] == [(2, 96, 15), (2, 24, 15), (2, 6, 15)]
    assert torch.sigmoid(maps[0][..., 0]).mean().item() == pytest.approx(PRIOR, rel=0.5)


def test_folding_changes_nothing(net):
    folded = copy.deepcopy(net)
    folded.fold()
    assert not any(isinstance(layer, torch.nn.BatchNorm2d) for layer in folded.modules())
    picture = torch.rand(1, 3, 64, 64) * 255
    with torch.inference_mode():
        for ours, theirs in zip(net(picture), folded(picture), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("height", "width"), [(64, 96), (160, 32)])
def test_the_file_says_what_the_net_says(net, exported, height, width):
    picture = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(1)) * 255
    with torch.inference_mode():
        eager = YuNetShape(net)(picture)
    session = ort.InferenceSession(exported, providers=["CPUExecutionProvider"])
    found = session.run(list(OUTPUT_ORDER), {"input": picture.numpy()})
    for name, ours, theirs in zip(OUTPUT_ORDER, eager, found, strict=True):
        stride, numbers = OUTPUTS[name]
        assert theirs.shape == (1, (height // stride) * (width // stride), numbers)
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-4, atol=1e-4)


def test_the_file_is_small_and_a_detector(exported):
    assert len(exported) < 1_000_000
    detector = OnnxDetector(exported, name="made-up")
    assert all(face.score >= 0.45 for face in detector.detect(np.zeros((50, 70, 3), np.uint8)))


def test_the_file_carries_its_threshold_and_none_of_our_paths(exported):
    session = ort.InferenceSession(exported, providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map == {"min_score": "0.450"}
    assert b".py" not in exported
