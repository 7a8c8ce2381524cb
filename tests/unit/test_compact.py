"""Weights in a few bits."""

import zlib

import numpy as np
import onnx
import pytest
import torch

from ferserve.faces.session import ScoringSession
from ferserve.training.calibrate import identity_scaling
from ferserve.training.compact import round_to_bits, store_whole, to_whole
from ferserve.training.export import ScoringGraph, export_onnx
from ferserve.training.models.mobilenet import MobileNetV1


def test_numbers_and_scales_by_hand():
    # Three bits reach from -3 to 3; the first channel is exact at a scale of 0.5, the second is zero.
    weight = torch.tensor([[1.5, -0.5, 1.0], [0.0, 0.0, 0.0]])
    numbers, scales = to_whole(weight, bits=3)
    assert numbers.tolist() == [[3.0, -1.0, 2.0], [0.0, 0.0, 0.0]]
    assert scales.tolist() == [0.5, 1.0]


def test_an_outlier_is_clipped_where_that_is_nearer():
    weight = torch.cat((torch.linspace(-1, 1, 200), torch.tensor([1.6])))[None]
    numbers, scales = to_whole(weight, bits=3)
    unclipped = (weight / (1.6 / 3)).round() * (1.6 / 3)
    error = (numbers * scales - weight).square().sum()
    assert scales[0] < 1.6 / 3
    assert error < (unclipped - weight).square().sum()


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    net = MobileNetV1().eval()
    net.fold_norms()
    return net


@pytest.fixture(scope="module")
def rounded(net):
    whole = round_to_bits(net, bits=5)
    graph = ScoringGraph(net, size_px=48, scaling=identity_scaling(7)).eval()
    return whole, graph, export_onnx(graph, crop_shape=(48, 48, 1))


def test_a_rounded_graph_computes_the_same_from_whole_numbers(rounded):
    whole, graph, plain = rounded
    small = store_whole(plain, whole)
    onnx.checker.check_model(onnx.load_from_string(small))
    crops = np.random.default_rng(0).integers(0, 256, (3, 48, 48, 1), dtype=np.uint8)
    scores = [ScoringSession(data, crop_shape=(48, 48, 1), threads=1).score(crops) for data in (plain, small)]
    assert np.abs(scores[0] - scores[1]).max() < 1e-6
    assert np.abs(scores[1] - graph(torch.from_numpy(crops)).detach().numpy()).max() < 1e-5
    # 3.2 million weights in about five bits each, deflated.
    assert len(zlib.compress(small)) < 0.2 * len(plain)


def test_numbers_stay_within_their_bits(rounded):
    whole, _, _ = rounded
    assert max(np.abs(weight.numbers).max() for weight in whole.values()) == 15
    assert set(whole) >= {"stem.conv.weight", "blocks.12.1.conv.weight", "classifier.weight"}


def test_graphs_of_other_weights_and_other_bits_are_refused(rounded, net):
    whole, _, plain = rounded
    other = {"stem.conv.weight": round_to_bits(MobileNetV1().stem, bits=4)["conv.weight"]}
    with pytest.raises(ValueError, match=r"expected an initializer net\.stem\.conv\.weight with the rounded weights"):
        store_whole(plain, other)
    with pytest.raises(ValueError, match="bits: expected 2 to 8, got 9"):
        round_to_bits(net, bits=9)
    assert whole
