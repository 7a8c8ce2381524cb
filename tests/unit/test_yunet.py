import copy

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper

from ferserve.faces.detectors.decoding import OUTPUTS
from ferserve.faces.detectors.onnx import OnnxDetector
from ferserve.training.data.errors import DataError
from ferserve.training.detector.export import OUTPUT_ORDER, YuNetShape, export_detector
from ferserve.training.detector.start import start_from
from ferserve.training.models.detector import PRIOR, YuNet, with_one_score

UNITS = ((16, 16), (16, 16), (16, 32), (32, 32), (32, 64), *((64, 64),) * 9)
"""Inputs and outputs of the published net's units, the pyramid's three among them, in the graph's order."""
HEADS = (1, 4, 1, 10)
"""Channels of cls, box, obj and landmarks, in the graph's order, each at three levels."""


def published_weights():
    """A weight and a bias for each convolution of the published net."""
    rng = np.random.default_rng(5)
    shapes = [(16, 3, 3, 3)]
    heads = [(64, channels) for channels in HEADS for _ in range(3)]
    for inputs, outputs in (*UNITS, *heads):
        shapes += [(outputs, inputs, 1, 1), (outputs, 1, 3, 3)]
    return [
        (
            rng.normal(0, 1 / np.sqrt(np.prod(shape[1:])), shape).astype(np.float32),
            rng.normal(0, 0.1, shape[0]).astype(np.float32),
        )
        for shape in shapes
    ]


def written(weights, path):
    """The convolutions alone, each fed by the picture: enough to take weights from, nothing to run."""
    nodes, values = [], []
    for index, pair in enumerate(weights):
        names = [f"{index}.weight", f"{index}.bias"]
        values += [numpy_helper.from_array(value, name) for value, name in zip(pair, names, strict=True)]
        nodes.append(helper.make_node("Conv", ["input", *names], [f"{index}.out"]))
    picture = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 64, 64])
    onnx.save(helper.make_model(helper.make_graph(nodes, "made-up", [picture], [], values)), path)
    return path


def published_answer(weights, picture):
    """The published net's forward pass by its own four heads: logits of cls and obj, box, landmarks of each level."""
    left = iter([tuple(map(torch.from_numpy, pair)) for pair in weights])

    def unit(x, *, relu=True):
        x = F.conv2d(x, *next(left))
        weight, bias = next(left)
        x = F.conv2d(x, weight, bias, padding=1, groups=len(weight))
        return F.relu(x) if relu else x

    stem = next(left)
    x = unit(F.relu(F.conv2d(picture, *stem, stride=2, padding=1)))
    features = []
    for units in (4, 2, 2, 2):
        x = F.max_pool2d(x, 2)
        for _ in range(units):
            x = unit(x)
        features.append(x)
    levels = [unit(features[3])]
    for feature in (features[2], features[1]):
        levels.insert(0, unit(feature + F.interpolate(levels[0], scale_factor=2)))
    heads = [[unit(level, relu=False).flatten(2).transpose(1, 2) for level in levels] for _ in HEADS]
    cls, box, obj, points = heads
    return [torch.cat(numbers, dim=-1) for numbers in zip(cls, obj, box, points, strict=True)]


@pytest.fixture(scope="module")
def weights():
    return published_weights()


@pytest.fixture(scope="module")
def net(weights, tmp_path_factory):
    made = YuNet()
    start_from(made, written(weights, tmp_path_factory.mktemp("published") / "yunet.onnx"))
    return made.eval()


@pytest.fixture(scope="module")
def exported(net):
    return export_detector(net, min_score=0.45)


def picture_of(height, width):
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(1)) * 255


def test_a_fresh_net_says_that_nothing_is_a_face():
    torch.manual_seed(0)
    with torch.inference_mode():
        maps = YuNet().eval()(torch.rand(2, 3, 64, 96) * 255)
    assert [tuple(level.shape) for level in maps] == [(2, 96, 16), (2, 24, 16), (2, 6, 16)]
    score = with_one_score(maps[0])[..., 0]
    assert torch.sigmoid(score).mean().item() == pytest.approx(PRIOR, rel=0.5)


def test_it_has_as_many_parameters_as_the_readme_says():
    assert sum(parameter.numel() for parameter in YuNet().parameters()) == 53_104


def test_from_published_weights_it_answers_as_the_published_net(net, weights):
    picture = picture_of(64, 96)
    with torch.inference_mode():
        for ours, theirs in zip(net(picture), published_answer(weights, picture), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-3)


def test_one_score_is_the_geometric_mean_of_two_probabilities():
    maps = torch.randn(1, 7, 16, generator=torch.Generator().manual_seed(2)) * 4
    maps[0, 0, :2] = 60.0
    cls, obj = torch.sigmoid(maps[..., 0]), torch.sigmoid(maps[..., 1])
    joined = with_one_score(maps)
    torch.testing.assert_close(torch.sigmoid(joined[..., 0]), (cls * obj).sqrt())
    assert torch.isfinite(joined).all()
    assert torch.equal(joined[..., 1:], maps[..., 2:])


def test_a_file_of_other_convolutions_is_refused(weights, tmp_path):
    fewer = written(weights[:-1], tmp_path / "fewer.onnx")
    with pytest.raises(DataError, match="expected the 53 convolutions of YuNet, found 52"):
        start_from(YuNet(), fewer)
    wider = [(np.zeros((32, 3, 3, 3), np.float32), np.zeros(32, np.float32)), *weights[1:]]
    with pytest.raises(DataError, match=r"of shape \(16, 3, 3, 3\), found \(32, 3, 3, 3\)"):
        start_from(YuNet(), written(wider, tmp_path / "wider.onnx"))
    (tmp_path / "none.onnx").write_bytes(b"no graph")
    with pytest.raises(DataError, match="expected a YuNet file"):
        start_from(YuNet(), tmp_path / "none.onnx")


def test_folding_changes_nothing(net):
    folded = copy.deepcopy(net)
    folded.fold()
    picture = picture_of(64, 64)
    with torch.inference_mode():
        for ours, theirs in zip(net(picture), folded(picture), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(("height", "width"), [(64, 96), (160, 32)])
def test_the_file_says_what_the_net_says(net, exported, height, width):
    picture = picture_of(height, width)
    with torch.inference_mode():
        eager = YuNetShape(net)(picture)
    session = ort.InferenceSession(exported, providers=["CPUExecutionProvider"])
    found = session.run(list(OUTPUT_ORDER), {"input": picture.numpy()})
    for name, ours, theirs in zip(OUTPUT_ORDER, eager, found, strict=True):
        stride, numbers = OUTPUTS[name]
        assert theirs.shape == (1, (height // stride) * (width // stride), numbers)
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-4, atol=1e-3)


def test_the_file_is_small_and_a_detector(exported):
    assert len(exported) < 1_000_000
    detector = OnnxDetector(exported, name="made-up")
    assert all(face.score >= 0.45 for face in detector.detect(np.zeros((50, 70, 3), np.uint8)))


def test_the_file_carries_its_threshold_and_none_of_our_paths(exported):
    session = ort.InferenceSession(exported, providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map == {"min_score": "0.450"}
    assert b".py" not in exported
