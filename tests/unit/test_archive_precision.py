import numpy as np
import pytest

from ferserve.faces.archive import read_archive
from ferserve.faces.cpu import Cpu
from ferserve.faces.errors import ArchiveError
from ferserve.faces.precision import resolve_precision
from ferserve.faces.session import ScoringSession

VNNI = Cpu(name="Newer CPU", vnni=True)
NO_VNNI = Cpu(name="Older CPU", vnni=False)
UNKNOWN = Cpu(name="unknown", vnni=None)


@pytest.fixture(scope="module")
def crops():
    return np.random.default_rng(0).integers(0, 256, (4, 24, 24, 1), dtype=np.uint8)


@pytest.fixture
def both(both_precisions):
    return read_archive(both_precisions)


@pytest.fixture
def fp32_only(tiny_archive):
    return read_archive(tiny_archive)


@pytest.mark.parametrize(
    ("choice", "cpu", "resolved"),
    [
        ("auto", VNNI, "int8"),
        ("auto", NO_VNNI, "fp32"),
        ("auto", UNKNOWN, "fp32"),
        ("fp32", VNNI, "fp32"),
        ("fp32", NO_VNNI, "fp32"),
        ("int8", VNNI, "int8"),
        ("int8", UNKNOWN, "int8"),  # whoever asks knows what the system does not say
    ],
)
def test_what_runs_of_an_archive_with_both(both, choice, cpu, resolved):
    assert resolve_precision(choice, both, cpu) == resolved


@pytest.mark.parametrize("cpu", [VNNI, NO_VNNI, UNKNOWN])
def test_an_archive_without_int8_runs_in_fp32(fp32_only, cpu):
    assert resolve_precision("auto", fp32_only, cpu) == resolve_precision("fp32", fp32_only, cpu) == "fp32"
    with pytest.raises(ArchiveError, match=r"precision int8: expected a member model\.int8\.onnx, has card\.md, model"):
        resolve_precision("int8", fp32_only, cpu)


def test_int8_is_refused_where_its_sums_overflow(both):
    with pytest.raises(ArchiveError, match="precision int8: expected a CPU with VNNI, got Older CPU without it"):
        resolve_precision("int8", both, NO_VNNI)


def test_an_accelerator_gets_fp32_unless_told_otherwise(both):
    assert resolve_precision("auto", both, VNNI, on_cpu=False) == "fp32"
    assert resolve_precision("int8", both, VNNI, on_cpu=False) == "int8"


def test_a_session_runs_the_graph_that_was_resolved(both, crops):
    scores = {}
    for choice, cpu, runs in (("fp32", VNNI, "fp32"), ("auto", NO_VNNI, "fp32"), ("auto", VNNI, "int8")):
        session = ScoringSession.from_archive(both, precision=choice, cpu=cpu)
        assert session.precision == runs
        scores[choice, cpu.vnni] = session.score(crops)
    np.testing.assert_array_equal(scores["fp32", True], scores["auto", False])
    assert np.abs(scores["auto", True] - scores["fp32", True]).max() > 1e-3
    assert ScoringSession.from_archive(both).precision == "fp32"
    with pytest.raises(ArchiveError, match="expected a CPU with VNNI"):
        ScoringSession.from_archive(both, precision="int8", cpu=NO_VNNI)


def test_a_broken_int8_graph_is_called_by_its_name(pack_archive):
    archive = read_archive(pack_archive("broken", int8=b"no graph"))
    with pytest.raises(ArchiveError, match=r"^model\.int8\.onnx: ONNX Runtime refuses it"):
        ScoringSession.from_archive(archive, precision="int8", cpu=VNNI)
    assert ScoringSession.from_archive(archive, precision="auto", cpu=NO_VNNI).precision == "fp32"
