"""What the handlers do to a program for a GPU; with one, also that it scores as before."""

import io

import numpy as np
import pytest
import torch
from tests.made_up.programs import TINY_SHAPE as SHAPE
from tests.made_up.programs import export
from torch import nn

from ferserve.faces.archive import MAX_BATCH_FACES
from ferserve.faces.errors import ArchiveError, InvalidRequestError
from ferserve.handlers.gpu import (
    GRAPH_FACES,
    GraphRunner,
    cast_weights,
    parts,
    pointwise_as_products,
    to_channels_last,
)
from ferserve.handlers.scorer import Scorer, precision_wish

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


class Net(nn.Module):
    """All that a program may hold of convolutions: of one pixel, strided, grouped, without bias."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(1, 8, 3, stride=2)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.pointwise = nn.Conv2d(8, 16, 1)
        self.bare = nn.Conv2d(16, 16, 1, bias=False)
        self.grouped = nn.Conv2d(16, 16, 1, groups=2)
        self.strided = nn.Conv2d(16, 8, 1, stride=2)
        self.last = nn.Linear(8, 7)

    def forward(self, crops):
        x = crops.permute(0, 3, 1, 2).to(torch.float32) / 127.5 - 1.0
        for layer in (self.stem, self.depthwise, self.pointwise, self.bare, self.grouped, self.strided):
            x = nn.functional.relu6(layer(x))
        return torch.softmax(self.last(x.mean(dim=(2, 3))), dim=1)


@pytest.fixture(scope="module")
def program():
    return export(Net())


@pytest.fixture
def module(program):
    return torch.export.load(io.BytesIO(program)).module()


def crops(faces):
    return np.random.default_rng(faces).integers(0, 256, (faces, *SHAPE), dtype=np.uint8)


def convolutions(module):
    return sum(node.target is torch.ops.aten.conv2d.default for node in module.graph.nodes)


@torch.inference_mode()
def test_as_products_a_program_scores_the_same(module):
    before = module(torch.from_numpy(crops(5)))
    to_channels_last(module)
    assert convolutions(module) == 6
    pointwise_as_products(module)
    assert convolutions(module) == 4, "the two of one pixel, all pixels and all channels"
    torch.testing.assert_close(module(torch.from_numpy(crops(5))), before, atol=1e-6, rtol=0)


def test_weights_are_cast_and_nothing_else_is(module):
    pointwise_as_products(module)
    cast_weights(module, torch.float16)
    assert {parameter.dtype for parameter in module.parameters()} == {torch.float16}
    module.register_parameter("other", nn.Parameter(torch.zeros(1)))
    cast_weights(module, torch.float16)
    assert module.other.dtype == torch.float32


@pytest.mark.parametrize(
    ("faces", "expected"),
    [
        (1, [(0, 1, 1)]),
        (5, [(0, 5, 8)]),
        (8, [(0, 8, 8)]),
        (17, [(0, 8, 8), (8, 16, 8), (16, 17, 1)]),
    ],
)
def test_parts_of_a_batch(faces, expected):
    assert list(parts(faces, (1, 4, 8))) == expected


def test_a_wrong_precision_is_named():
    assert precision_wish("fp16") == "fp16"
    with pytest.raises(InvalidRequestError, match="expected one of auto, fp32, fp16, got 'bf16'"):
        precision_wish("bf16")


@on_gpu
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("fp16", 5e-3)])
def test_on_a_gpu_a_program_scores_what_it_does_on_the_cpu(program, precision, tolerance):
    expected = Scorer.load(program, crop_shape=SHAPE, device="cpu")
    scorer = Scorer.load(program, crop_shape=SHAPE, device="cuda:0", precision=precision)
    assert scorer.precision == precision
    for faces in (1, 3, 100, GRAPH_FACES[-1] + 3, MAX_BATCH_FACES + 1, 2):
        np.testing.assert_allclose(scorer.score(crops(faces)), expected.score(crops(faces)), atol=tolerance)


@on_gpu
def test_half_precision_that_was_asked_for_and_differs_is_refused(monkeypatch, program):
    monkeypatch.setattr("ferserve.handlers.scorer.HALF_TOLERANCE", -1.0)
    with pytest.raises(ArchiveError, match="expected a program that computes in fp16"):
        Scorer.load(program, crop_shape=SHAPE, device="cuda:0", precision="fp16")
    assert Scorer.load(program, crop_shape=SHAPE, device="cuda:0").precision == "fp32"


@on_gpu
def test_what_was_scored_stays_when_more_is(program):
    expected = Scorer.load(program, crop_shape=SHAPE, device="cpu")
    runner = GraphRunner(
        Scorer.load(program, crop_shape=SHAPE, device="cuda:0", precision="fp32").forward,
        crop_shape=SHAPE,
        device="cuda:0",
        sizes=(2, 4),
    )
    first = runner(crops(9))
    runner(crops(3))
    np.testing.assert_allclose(first, expected.score(crops(9)), atol=1e-5)
