"""The class that TorchServe calls, on an archive unpacked as TorchServe unpacks it."""

import importlib.util
import inspect
import sys
import zipfile

import numpy as np
import pytest
import torch
from tests.made_up.programs import TINY_SHAPE as SHAPE
from tests.made_up.programs import Linear, export

from ferserve.faces.archive import MAX_BATCH_FACES, read_archive
from ferserve.faces.arrays import pack_array, unpack_array
from ferserve.faces.errors import ArchiveError, InvalidRequestError
from ferserve.faces.session import ScoringSession
from ferserve.faces.wire import Description
from ferserve.handlers.packing import with_handler
from ferserve.handlers.scorer import Scorer
from ferserve.handlers.service import load_answerer


class Context:
    """What TorchServe passes in; remembers what is set on it."""

    def __init__(self, folder):
        self.system_properties = {"model_dir": str(folder), "gpu_id": None, "batch_size": 1}
        self.set = {}

    def set_response_status(self, code=200, phrase="", idx=0):
        self.set[idx, "status"] = (code, phrase)

    def set_response_content_type(self, idx, value):
        self.set[idx, "type"] = value


@pytest.fixture(scope="module")
def program(tiny_weights):
    return export(Linear(tiny_weights))


@pytest.fixture(scope="module")
def archive(pack_archive, program, tmp_path_factory):
    packed = read_archive(pack_archive("torch", program=program))
    return with_handler(packed, tmp_path_factory.mktemp("handled") / "torch.mar")


@pytest.fixture
def folder(archive, tmp_path):
    with zipfile.ZipFile(archive.path) as file:
        file.extractall(tmp_path)
    return tmp_path


@pytest.fixture
def entry(folder):
    """The one class of the archive's handler, found as TorchServe finds it."""
    spec = importlib.util.spec_from_file_location("ferserve_entry", folder / "ferserve_entry.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (found,) = [cls for _, cls in inspect.getmembers(module, inspect.isclass) if cls.__module__ == module.__name__]
    return found


@pytest.fixture
def one_thread():
    """`initialize` leaves torch with one thread, which is no other test's business."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def crops(faces):
    return np.random.default_rng(faces).integers(0, 256, (faces, *SHAPE), dtype=np.uint8)


@pytest.mark.usefixtures("one_thread")
def test_the_archives_own_class_gives_the_scores_of_its_onnx_graph(archive, entry, folder):
    service, context = entry(), Context(folder)
    service.initialize(context)
    sent = crops(9)
    bodies = service.handle([{"crops": pack_array(sent)}, {"body": b"?"}, {"describe": b""}], context)
    scores = unpack_array(bodies[0], dtype=np.float32)
    np.testing.assert_allclose(scores, ScoringSession.from_archive(archive).score(sent), atol=1e-6)
    assert context.set == {
        (0, "status"): (200, ""),
        (0, "type"): "application/octet-stream",
        (1, "status"): (415, ""),
        (1, "type"): "application/json",
        (2, "status"): (200, ""),
        (2, "type"): "application/json",
    }
    described = Description.unpack(bodies[2])
    assert (described.model, described.version, described.precision) == ("torch", "0.0.1", "fp32")
    assert described.program_sha256 == archive.manifest.members["model.pt2"]
    assert described.preprocess_sha256 == archive.manifest.preprocess_sha256
    assert (described.device, described.detector) == ("cpu", "ferdet")


def test_nothing_of_torchserve_is_imported():
    assert "ts" not in sys.modules


def test_an_altered_program_is_not_loaded(folder, monkeypatch):
    def refuse(*_args, **_kwargs):
        pytest.fail("torch saw the bytes")

    monkeypatch.setattr(torch.export, "load", refuse)
    data = bytearray((folder / "model.pt2").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "model.pt2").write_bytes(data)
    with pytest.raises(ArchiveError, match=r"model\.pt2: expected SHA-256 [0-9a-f]{64}, got [0-9a-f]{64}: it was alt"):
        load_answerer(folder, device="cpu")


def test_a_missing_program_is_named(folder):
    (folder / "model.pt2").unlink()
    with pytest.raises(ArchiveError, match=r"model\.pt2: expected a member of this name"):
        load_answerer(folder, device="cpu")


def test_an_unknown_detector_is_named(folder):
    with pytest.raises(InvalidRequestError, match=r"detector: expected one of .* got 'eyes'"):
        load_answerer(folder, device="cpu", detector="eyes")


def test_more_faces_than_the_program_takes_are_scored_in_parts(program):
    scorer = Scorer.load(program, crop_shape=SHAPE, device="cpu")
    sent = crops(MAX_BATCH_FACES + 3)
    scores = scorer.score(sent)
    assert scores.shape == (MAX_BATCH_FACES + 3, 7)
    np.testing.assert_allclose(scores[-3:], scorer.score(sent[-3:]), atol=1e-6)
    assert scorer.score(sent[:0]).shape == (0, 7)


def test_half_precision_is_taken_where_it_agrees_and_left_where_it_does_not(program, tiny_weights):
    good = Scorer.load(program, crop_shape=SHAPE, device="cpu")
    single = good.score(crops(4))
    good._take_half()
    assert good.precision == "fp16"
    np.testing.assert_allclose(good.score(crops(4)), single, atol=1e-2)
    overflowing = Scorer.load(export(Linear(tiny_weights * 1e5)), crop_shape=SHAPE, device="cpu")
    overflowing._take_half()
    assert overflowing.precision == "fp32"


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (
            lambda weights: Linear(weights[:, :6]),
            r"expected finite scores of shape \(1, 7\) of noise, got shape \(1, 6",
        ),
        (lambda weights: Linear(weights * np.float32("nan")), "expected finite scores"),
    ],
)
def test_a_program_that_gives_something_else_does_not_start(module, message, tiny_weights):
    with pytest.raises(ArchiveError, match=message):
        Scorer.load(export(module(tiny_weights)), crop_shape=SHAPE, device="cpu")


def test_a_program_for_other_crops_or_none_at_all_does_not_start(program):
    with pytest.raises(ArchiveError, match="cannot score 1 crops"):
        Scorer.load(program, crop_shape=(48, 48, 1), device="cpu")
    with pytest.raises(ArchiveError, match="torch refuses it"):
        Scorer.load(b"no program", crop_shape=SHAPE, device="cpu")


def test_packing_changes_nothing_but_the_handler(archive, pack_archive, program, tmp_path):
    before = read_archive(pack_archive("torch", program=program))
    assert {name: before.read(name) for name in before.manifest.members} == {
        name: archive.read(name) for name in archive.manifest.members if name != "ferserve_entry.py"
    }
    assert with_handler(archive, tmp_path / "again.mar").sha256 == archive.sha256
    with pytest.raises(ArchiveError, match=r"expected a member model\.pt2"):
        with_handler(read_archive(pack_archive("onnx-only")), tmp_path / "b.mar")
