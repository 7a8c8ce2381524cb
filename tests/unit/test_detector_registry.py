import hashlib
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from skimage import data

from ferserve.faces.detectors import (
    DEFAULT_DETECTOR,
    DETECTOR_NAMES,
    default_detector,
    is_detector,
    load_detector,
)
from ferserve.faces.detectors.onnx import OnnxDetector
from ferserve.faces.errors import ArchiveError, InvalidRequestError
from ferserve.faces.index import Index, read_detector


@pytest.fixture(params=["ferdet", "haar", "a file"])
def detector(request, red_detector):
    return load_detector(str(red_detector) if request.param == "a file" else request.param)


def taken(steps):
    """What a detector finds in steps, and how many pauses there were."""
    pauses = 0
    while True:
        try:
            next(steps)
        except StopIteration as done:
            return done.value, pauses
        pauses += 1


def boxes(faces):
    return [(face.box, face.score) for face in faces]


def test_every_detector_keeps_the_protocol(detector):
    assert detector.name
    assert detector.default_size_px(480, 640) == detector.default_size_px(640, 480) > 0
    image = np.random.default_rng(1).integers(0, 256, (200, 300, 3), np.uint8)
    image[:, :, 0] |= 0xC0
    for size_px in (None, 64, 300, 4096):
        found = detector.detect(image, size_px=size_px)
        scores = [face.score for face in found]
        assert scores == sorted(scores, reverse=True)
        assert all(0 <= score <= 1 for score in scores)
        for face in found:
            assert face.box.x0 < face.box.x1
            assert face.box.y0 < face.box.y1
            assert face.landmarks is None or face.landmarks.shape == (5, 2)


def test_in_steps_a_detector_finds_the_same(detector):
    image = np.random.default_rng(1).integers(0, 256, (300, 1400, 3), np.uint8)
    image[:, :, 0] |= 0xC0
    found, pauses = taken(detector.steps(image, size_px=1400))
    assert boxes(found) == boxes(detector.detect(image, size_px=1400))
    assert (pauses > 0) is (detector.name != "haar"), "what is wider than a window pauses between windows"


def test_on_several_threads_a_detector_finds_the_same(detector):
    image = np.random.default_rng(1).integers(0, 256, (1100, 1400, 3), np.uint8)
    image[:, :, 0] |= 0xC0
    with ThreadPoolExecutor(3) as executor:
        found = detector.detect_on(executor, image, size_px=1400)
    assert boxes(found) == boxes(detector.detect(image, size_px=1400))


@pytest.mark.parametrize("size_px", [None, 256])
def test_the_shipped_detector_finds_the_one_face_of_a_photo(size_px):
    # The face of scikit-image's astronaut lies at about (170, 65) to (275, 205); her right eye is on the left.
    (face,) = default_detector().detect(data.astronaut(), size_px=size_px)
    assert (face.box.x0, face.box.y0, face.box.x1, face.box.y1) == pytest.approx((176, 70, 265, 185), abs=14)
    right_eye, left_eye, nose, right_mouth, left_mouth = face.landmarks
    assert right_eye[0] < nose[0] < left_eye[0]
    assert right_mouth[0] < left_mouth[0]
    assert max(right_eye[1], left_eye[1]) < nose[1] < min(right_mouth[1], left_mouth[1])


def test_the_shipped_detector_finds_no_face_where_there_is_none():
    for picture in (data.coffee(), data.brick(), data.rocket(), np.zeros((480, 640, 3), np.uint8)):
        rgb = (
            np.ascontiguousarray(np.broadcast_to(picture[..., None], (*picture.shape, 3)))
            if picture.ndim == 2
            else picture
        )
        assert default_detector().detect(rgb) == []


def test_names_are_known():
    assert {"ferdet", "haar"} == set(DETECTOR_NAMES)
    assert DEFAULT_DETECTOR in DETECTOR_NAMES
    assert default_detector().name == DEFAULT_DETECTOR
    assert default_detector() is default_detector()


@pytest.mark.parametrize("name", ["viola", "", "default.mar", "Haar"])
def test_other_names_are_refused(name):
    assert not is_detector(name)
    with pytest.raises(InvalidRequestError, match=f"detector: expected one of ferdet, haar or the path .*got '{name}'"):
        load_detector(name)


def test_a_file_is_loaded_by_its_path(red_detector):
    detector = load_detector(str(red_detector))
    assert isinstance(detector, OnnxDetector)
    assert detector.name == "onnx", "answers name no path"


def test_a_file_that_is_missing_or_no_detector_is_named(tmp_path):
    path = tmp_path / "eyes.onnx"
    with pytest.raises(ArchiveError, match=r"eyes\.onnx: expected a detector's ONNX file: No such file"):
        load_detector(str(path))
    path.write_bytes(b"eyes")
    with pytest.raises(ArchiveError, match=r"eyes\.onnx: detector: ONNX Runtime refuses it"):
        load_detector(str(path))


def index(folder, data, sha256=None):
    folder.joinpath("detector.onnx").write_bytes(data)
    entry = {"file": "detector.onnx", "sha256": sha256 or hashlib.sha256(data).hexdigest()}
    archives = {"a": {"file": "a.mar", "sha256": "0" * 64}}
    folder.joinpath("index.json").write_text(json.dumps({"default": "a", "archives": archives, "detector": entry}))
    return Index.read(folder)


def test_the_shipped_file_is_checked(tmp_path):
    assert read_detector(index(tmp_path, b"graph")) == b"graph"
    with pytest.raises(ArchiveError, match=f"expected SHA-256 {'0' * 64}, got .*altered"):
        read_detector(index(tmp_path, b"graph", sha256="0" * 64))
    shipped = index(tmp_path, b"graph")
    (tmp_path / "detector.onnx").unlink()
    with pytest.raises(ArchiveError, match=r"expected a detector with SHA-256 .*No such file"):
        read_detector(shipped)


def test_an_index_may_hold_archives_only():
    with pytest.raises(ArchiveError, match=r"expected a detector, has archives only: name an \.onnx file by its path"):
        read_detector(Index(default="a", archives={}))
