import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from ferserve.faces.cpu import Cpu
from ferserve.faces.session import ScoringSession
from ferserve.training.card import precision_lines
from ferserve.training.evaluate import make_report
from ferserve.training.fidelity import compare
from ferserve.training.held_out import Faces
from ferserve.training.int8 import PACKED, Candidate, Int8Graph, LeftOut, make_int8, try_int8
from ferserve.training.measure import Measurement
from ferserve.training.quantize import Int8Settings, to_int8

CROP_SHAPE = (48, 48, 1)
VNNI = Cpu(name="Newer CPU", vnni=True)
# Weights of 7 bits score alike on every CPU that runs these tests.
SAFE = (
    Int8Settings(method="minmax", float_convs=2, reduce_range=True),
    Int8Settings(method="minmax", float_convs=1, reduce_range=True),
)


def tiles(seed):
    """Flat tiles in pictures from dark to bright: unlike noise, these differ from each other after pooling."""
    brightness = np.linspace(0.1, 1, 40)[:, None, None, None]
    small = np.random.default_rng(seed).integers(0, 256, (40, 8, 8, 1)) * brightness
    return small.astype(np.uint8).repeat(6, axis=1).repeat(6, axis=2)


@pytest.fixture(scope="module")
def graph(conv_graph):
    """`conv_graph` with a bias by which no class wins always."""
    scores = ScoringSession(conv_graph, crop_shape=CROP_SHAPE).score(tiles(1))
    model = onnx.load_from_string(conv_graph)
    (bias,) = (tensor for tensor in model.graph.initializer if tensor.name == "head.bias")
    bias.CopyFrom(numpy_helper.from_array(-np.log(scores).mean(axis=0).astype(np.float32), "head.bias"))
    return bytes(model.SerializeToString())


@pytest.fixture(scope="module")
def faces(graph):
    """A split whose labels are what float32 answers, and its scores."""
    session = ScoringSession(graph, crop_shape=CROP_SHAPE)

    def make(seed):
        crops = tiles(seed)
        scores = session.score(crops)
        assert len(set(scores.argmax(axis=1))) > 2
        return Faces(crops=crops, labels=scores.argmax(axis=1).astype(np.int64)), scores

    return make


@pytest.fixture(scope="module")
def pack(graph, faces):
    (validation, _), (public, public_scores) = faces(3), faces(2)

    def pack(calibration, *, cpu=VNNI, candidates=SAFE):
        return make_int8(
            graph, calibration, validation, public,
            public_scores_NK=public_scores, cpu=cpu, threads=1, candidates=candidates,
        )  # fmt: skip

    return pack


def test_the_chosen_graph_is_the_one_that_is_measured_on_the_test_split(graph, pack, faces):
    made = pack(tiles(1))
    assert isinstance(made, Int8Graph)
    assert made.graph == to_int8(graph, tiles(1), made.chosen.settings)
    public, scores = faces(2)
    own = ScoringSession(made.graph, crop_shape=CROP_SHAPE).score(public.crops)
    assert made.public == compare(scores, own, public.labels)
    assert made.chosen.fidelity.objections == ()
    assert made.chosen.fidelity.faces == 40
    assert 0 < made.chosen.fidelity.largest_score_change < 0.2


def test_the_setting_with_the_fewest_float_layers_is_chosen(pack):
    assert pack(tiles(1)).chosen.settings == SAFE[1]


def test_int8_that_breaks_the_rule_is_left_out_and_says_why(pack):
    # Ranges taken from black pictures hold nothing of bright ones.
    made = pack(tiles(1) // 64)
    assert isinstance(made, LeftOut)
    assert made.reason.startswith("on 40 validation faces the best of 2 settings (minmax, ")
    assert "agrees on " in made.reason
    assert "not on more than 97 %" in made.reason


@pytest.mark.parametrize("vnni", [False, None])
def test_a_cpu_without_vnni_measures_no_int8(pack, vnni):
    made = pack(tiles(1), cpu=Cpu(name="Older CPU", vnni=vnni))
    assert isinstance(made, LeftOut)
    assert made.reason.startswith("packed on Older CPU, which is not known to have VNNI")


def test_every_setting_is_yielded_with_its_graph(graph, faces):
    validation, scores = faces(2)
    found = list(try_int8(graph, tiles(1), validation, SAFE))
    assert [candidate.settings for candidate, _ in found] == list(SAFE)
    for candidate, quantised in found:
        own = ScoringSession(quantised, crop_shape=CROP_SHAPE, precision="int8").score(validation.crops)
        assert candidate.fidelity == compare(scores, own, validation.labels)


def test_an_archives_settings_are_few_and_of_eight_bits():
    assert len(PACKED) == len(set(PACKED)) == 3
    assert not any(settings.reduce_range for settings in PACKED)
    assert PACKED[0].text == "percentile, 2 float convolutions, 8-bit weights"


def measured_and_kept():
    """Ten faces of class 0: float32 gets eight, int8 nine, and one more differs in how it is wrong."""
    labels = np.zeros(10, np.int64)
    float_top, top = np.asarray([0] * 8 + [1, 2]), np.asarray([0] * 9 + [3])
    scores, int8 = (np.where(np.eye(7, dtype=bool)[t], 0.4, 0.1).astype(np.float32) for t in (float_top, top))
    report = make_report(scores, labels)
    measured = Measurement(
        precision="fp32", report=report, without_duplicates=None, without_similar=None, dropped={}, data_sha256="",
        scores=scores, labels=labels,
    )  # fmt: skip
    return measured, compare(scores, int8, labels)


def test_the_card_sets_int8_beside_fp32():
    measured, kept = measured_and_kept()
    made = Int8Graph(graph=b"", chosen=Candidate(settings=PACKED[0], fidelity=kept), public=kept)
    lines = precision_lines(made, measured)
    assert "| accuracy | 80.00 % | 90.00 % |" in lines
    assert "| same top class as fp32 | | 80.00 % |" in lines
    assert "| expected calibration error | 40.00 % | 50.00 % |" in lines
    assert any(line.startswith("| points to fp32 | | +10.00 (") for line in lines)
    assert lines[-1].startswith("int8 (percentile, 2 float convolutions, 8-bit weights) was set up on 10 faces")
    assert "there +10.00 points to fp32, and on 80.00 % the same top class" in lines[-1]


def test_the_card_says_why_there_is_no_int8():
    measured, _ = measured_and_kept()
    assert precision_lines(LeftOut(reason="it loses 0.31 points of 0.3"), measured) == [
        "This archive runs in fp32 alone. int8 is left out: it loses 0.31 points of 0.3."
    ]
