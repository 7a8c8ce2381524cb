"""Batches on a GPU; without one, how they are parted."""

import numpy as np
import pytest
import torch
from tests.made_up.programs import TINY_SHAPE as SHAPE
from tests.made_up.programs import Convolutions, export

from ferserve.faces.archive import MAX_BATCH_FACES
from ferserve.faces.errors import ArchiveError, InvalidRequestError
from ferserve.handlers.graphs import GRAPH_FACES, GraphRunner, parts
from ferserve.handlers.scorer import Scorer, precision_wish

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture(scope="module")
def program():
    return export(Convolutions())


def crops(faces):
    return np.random.default_rng(faces).integers(0, 256, (faces, *SHAPE), dtype=np.uint8)


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
