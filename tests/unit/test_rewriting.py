"""A program that was rewritten to run faster scores as before."""

import io

import numpy as np
import pytest
import torch
from tests.made_up.programs import TINY_SHAPE, Convolutions, export
from torch import nn

from ferserve.handlers.rewriting import activations_in_place, cast_weights, pointwise_as_products, to_channels_last

ATEN = torch.ops.aten


@pytest.fixture(scope="module")
def program():
    return export(Convolutions())


@pytest.fixture
def module(program):
    return torch.export.load(io.BytesIO(program)).module()


@pytest.fixture
def score(module):
    crops = np.random.default_rng(0).integers(0, 256, (5, *TINY_SHAPE), dtype=np.uint8)

    @torch.inference_mode()
    def run():
        return module(torch.from_numpy(crops))

    return run


def count(module, target):
    return sum(node.target is target for node in module.graph.nodes)


def test_as_products_a_program_scores_the_same(module, score):
    before = score()
    assert count(module, ATEN.conv2d.default) == 7
    to_channels_last(module)
    pointwise_as_products(module)
    assert count(module, ATEN.conv2d.default) == 4, "three are of one pixel, of all pixels and of all channels"
    torch.testing.assert_close(score(), before, atol=1e-6, rtol=0)


@pytest.mark.parametrize("as_products", [False, True])
def test_in_place_a_program_scores_the_same(module, score, as_products):
    before = score()
    if as_products:
        pointwise_as_products(module)
    activations_in_place(module)
    assert count(module, ATEN.hardtanh_.default) == 6
    assert count(module, ATEN.relu.default) == 1, "what another one takes too is not written over"
    torch.testing.assert_close(score(), before, atol=1e-6, rtol=0)


def test_weights_are_cast_and_nothing_else_is(module):
    module.register_parameter("other", nn.Parameter(torch.zeros(1)))
    pointwise_as_products(module)
    cast_weights(module, torch.float16)
    assert module.other.dtype == torch.float32
    assert {own.dtype for name, own in module.named_parameters() if name != "other"} == {torch.float16}
