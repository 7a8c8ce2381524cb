import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from ferserve.faces.errors import ArchiveError
from ferserve.faces.session import ScoringSession
from ferserve.training.quantize import Int8Settings, to_half, to_int8

CROP_SHAPE = (48, 48, 1)
CONVS = ("stem", "depthwise", "pointwise", "last")


@pytest.fixture(scope="module")
def crops():
    # Flat tiles in pictures from dark to bright: unlike noise, these differ from each other after pooling.
    tiles = np.random.default_rng(1).integers(0, 256, (40, 8, 8, 1)) * np.linspace(0.1, 1, 40)[:, None, None, None]
    return tiles.astype(np.uint8).repeat(6, axis=1).repeat(6, axis=2)


@pytest.fixture(scope="module")
def float_scores(conv_graph, crops):
    scores = ScoringSession(conv_graph, crop_shape=CROP_SHAPE).score(crops)
    assert np.ptp(scores, axis=0).max() > 0.1
    return scores


def settings(**changes):
    return Int8Settings(**{"method": "minmax", "float_convs": 0, "reduce_range": False} | changes)


def quantised_convs(model):
    """Names of the convolutions whose weights come out of a DequantizeLinear."""
    dequantised = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    return [node.name for node in model.graph.node if node.op_type == "Conv" and node.input[1] in dequantised]


def tensors(graph):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load_from_string(graph).graph.initializer}


def test_half_takes_and_gives_what_the_graph_did(conv_graph, crops, float_scores):
    half = to_half(conv_graph)
    model = onnx.load_from_string(half)
    onnx.checker.check_model(model)
    weights = [tensor for tensor in model.graph.initializer if ".weight" in tensor.name]
    assert {tensor.data_type for tensor in weights} == {TensorProto.FLOAT16}
    session = ScoringSession(half, crop_shape=CROP_SHAPE)
    for count in (1, 3, 40):
        assert np.abs(session.score(crops[:count]) - float_scores[:count]).max() < 0.02


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy"])
def test_int8_scores_nearly_as_float_and_prints_nothing(conv_graph, crops, float_scores, method, capfd):
    int8 = to_int8(conv_graph, crops, settings(method=method))
    assert capfd.readouterr().out == ""
    session = ScoringSession(int8, crop_shape=CROP_SHAPE)
    for count in (1, 3, 40):
        change = np.abs(session.score(crops[:count]) - float_scores[:count])
        assert 0 < change.max() < 0.1


def test_int8_reaches_the_convolutions_and_nothing_else(conv_graph, crops):
    model = onnx.load_from_string(to_int8(conv_graph, crops, settings()))
    onnx.checker.check_model(model)
    assert quantised_convs(model) == list(CONVS)
    around = {node.op_type: node for node in model.graph.node if node.op_type in ("Div", "Gemm", "Softmax")}
    assert around["Div"].input[:] == ["numbers", "white"]
    assert around["Gemm"].input[:] == ["features", "head.weight", "head.bias"]
    assert around["Softmax"].input[:] == ["logits"]


def test_every_channel_of_the_weights_has_its_own_scale(conv_graph, crops):
    int8 = tensors(to_int8(conv_graph, crops, settings()))
    scales = {name: int8[f"{name}.weight_scale"] for name in CONVS}
    assert [len(scales[name]) for name in CONVS] == [8, 8, 16, 16]
    assert int8["depthwise.weight_quantized"].dtype == np.int8
    assert len(set(scales["depthwise"].tolist())) == 8


def test_reduced_range_leaves_seven_bits(conv_graph, crops):
    for reduce_range, largest in ((False, 127), (True, 64)):
        int8 = tensors(to_int8(conv_graph, crops, settings(reduce_range=reduce_range)))
        weights = np.concatenate([int8[f"{name}.weight_quantized"].ravel() for name in CONVS]).astype(int)
        assert np.abs(weights).max() == largest


@pytest.mark.parametrize("float_convs", [1, 2])
def test_the_first_convolutions_stay_float(conv_graph, crops, float_scores, float_convs):
    int8 = to_int8(conv_graph, crops, settings(float_convs=float_convs))
    assert quantised_convs(onnx.load_from_string(int8)) == list(CONVS[float_convs:])
    # By its optimiser's own will ONNX Runtime may quantise what was meant to stay float; then these would be far apart.
    scores = ScoringSession(int8, crop_shape=CROP_SHAPE).score(crops)
    assert np.abs(scores - float_scores).max() < 0.05


def test_equal_crops_give_equal_bytes(conv_graph, crops):
    first = to_int8(conv_graph, crops, settings(float_convs=1))
    assert to_int8(conv_graph, crops, settings(float_convs=1)) == first
    assert to_int8(conv_graph, crops // 2, settings(float_convs=1)) != first


def test_ranges_come_from_every_batch_of_crops(conv_graph, crops):
    dark = np.zeros_like(crops)
    dark[-1] = crops[0]
    brightest_last = tensors(to_int8(conv_graph, dark, settings()))["x_scale"]
    assert brightest_last == pytest.approx(crops[0].max() / 127.5 / 255, rel=1e-5)


def test_what_cannot_be_quantised_is_named(conv_graph, crops):
    with pytest.raises(ArchiveError, match="expected more than 4 convolutions to keep so many in float32, got 4"):
        to_int8(conv_graph, crops, settings(float_convs=4))
    with pytest.raises(ValueError, match="crops: expected at least one"):
        to_int8(conv_graph, crops[:0], settings())
    with pytest.raises(ValueError, match="method must be one of minmax, percentile, entropy, got 'mean'"):
        settings(method="mean")
    with pytest.raises(ValueError, match="float_convs must be 0 or more, got -1"):
        settings(float_convs=-1)
