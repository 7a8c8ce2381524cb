"""The handlers on real photos and crops, with scores that a test can know."""

import json
import logging
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from ferserve.faces.archive import read_archive
from ferserve.faces.arrays import pack_array, unpack_array
from ferserve.faces.decode import DecodeLimits, decode
from ferserve.faces.detectors import Detector, default_detector
from ferserve.faces.errors import Reason
from ferserve.faces.preprocess import face_crop
from ferserve.faces.types import Box, Detection
from ferserve.faces.wire import Description, PhotoOptions, RemoteError, ScoredPhoto, read_reply, unpack_photos
from ferserve.handlers.answering import Answerer
from ferserve.handlers.face_handler import FaceHandler
from ferserve.handlers.image_handler import ImageHandler

SHAPE = (24, 24, 1)
DESCRIPTION = Description(
    model="tiny",
    version="1",
    program_sha256="a",
    preprocess_sha256="b",
    precision="fp32",
    device="cpu",
    detector="haar",
)


class Model:
    """Scores a crop by its mean, so that each row tells which crop it belongs to; remembers its batches."""

    def __init__(self):
        self.batches = []
        self.error = None

    def __call__(self, crops):
        self.batches.append(len(crops))
        if self.error is not None:
            raise self.error
        return expected_rows(crops)


def expected_rows(crops):
    means = crops.reshape(len(crops), -1).mean(axis=1, dtype=np.float32) / 255
    return np.repeat(means[:, None], 7, axis=1)


class TwoFaces(Detector):
    """Finds the same two faces in every picture, and a third that no crop can be cut of."""

    name = "two"

    def default_size_px(self, height_px, width_px):
        return max(height_px, width_px)

    def detect(self, image, *, size_px=None):  # noqa: ARG002 - as every detector
        boxes = [(10, 10, 200, 200), (9000, 9000, 9100, 9100), (200, 40, 300, 140)]
        return [
            Detection(box=Box(x0=x0, y0=y0, x1=x1, y1=y1), score=0.9 - 0.1 * index)
            for index, (x0, y0, x1, y1) in enumerate(boxes)
        ]


@pytest.fixture
def model():
    return Model()


@pytest.fixture(scope="module")
def manifest(tiny_archive):
    return read_archive(tiny_archive).manifest


@pytest.fixture
def answerer(model, manifest):
    return make(model, manifest, TwoFaces())


def make(model, manifest, detector):
    images = ImageHandler(manifest, detector, DecodeLimits(), executor=ThreadPoolExecutor(2))
    return Answerer(model, FaceHandler(SHAPE), images, DESCRIPTION)


def crops(faces):
    return np.random.default_rng(faces).integers(0, 256, (faces, *SHAPE), dtype=np.uint8)


def reason(reply):
    with pytest.raises(RemoteError) as caught:
        read_reply(reply.body)
    return caught.value.reason


def test_crops_are_scored_in_their_order(answerer, model):
    sent = crops(5)
    (reply,) = answerer.replies([{"crops": pack_array(sent)}])
    assert (reply.status, reply.content_type) == (200, "application/octet-stream")
    np.testing.assert_array_equal(unpack_array(reply.body, dtype=np.float32), expected_rows(sent))
    assert model.batches == [5]


def test_all_faces_of_all_requests_are_one_batch_and_each_request_gets_its_own(answerer, model, face_photo):
    few, many = crops(2), crops(7)
    requests = [
        {"crops": pack_array(few)},
        {"photo.a": face_photo, "photo.b": face_photo},
        {"body": bytearray(face_photo)},
        {"describe": b""},
        {"body": pack_array(many)},
    ]
    replies = answerer.replies(requests)
    assert model.batches == [2 + 4 + 2 + 7]
    np.testing.assert_array_equal(unpack_array(replies[0].body, dtype=np.float32), expected_rows(few))
    np.testing.assert_array_equal(unpack_array(replies[4].body, dtype=np.float32), expected_rows(many))
    photos = unpack_photos(replies[1].body)
    assert [(photo.found, photo.skipped, len(photo.faces)) for photo in photos.values()] == [(3, 1, 2)] * 2
    alone = json.loads(replies[2].body)
    for one, other in zip(photos["a"].faces, alone["faces"], strict=True):
        np.testing.assert_allclose(one.scores, list(other["scores"].values()))
    assert Description.unpack(replies[3].body) == DESCRIPTION


def test_a_photo_is_seen_by_the_one_pixel_path(model, manifest, face_photo):
    (reply,) = make(model, manifest, default_detector()).replies([{"photo.p": face_photo}])
    (face,) = unpack_photos(reply.body)["p"].faces
    image = decode(face_photo, DecodeLimits()).pixels
    (found,) = default_detector().detect(image)
    expected = expected_rows(face_crop(image, found, manifest.preprocess)[None])[0]
    np.testing.assert_array_equal(face.scores, expected)
    assert face.detection.box == found.box
    assert face.uncertain == bool(expected[0] < manifest.uncertain_below)


def test_a_bad_photo_is_an_error_in_its_own_place(answerer, face_photo):
    sent = {"photo.0": face_photo, "photo.1": face_photo[:500], "photo.2": b"no picture", "photo.3": face_photo}
    (reply,) = answerer.replies([sent])
    assert reply.status == 200
    got = unpack_photos(reply.body)
    assert [type(got[name]) for name in "0123"] == [ScoredPhoto, RemoteError, RemoteError, ScoredPhoto]
    assert (got["1"].reason, got["2"].reason) == (Reason.INVALID_IMAGE, Reason.UNSUPPORTED_MEDIA)
    np.testing.assert_array_equal(got["0"].faces[0].scores, got["3"].faces[0].scores)


@pytest.mark.parametrize(
    ("inputs", "expected", "status"),
    [
        ({"crops": pack_array(np.zeros((2, 24, 23, 1), np.uint8))}, Reason.INVALID_REQUEST, 400),
        ({"crops": pack_array(np.zeros((24, 24, 1), np.uint8))}, Reason.INVALID_REQUEST, 400),
        ({"crops": pack_array(np.zeros((0, 24, 24, 1), np.uint8))}, Reason.INVALID_REQUEST, 400),
        ({"crops": pack_array(np.zeros((1, 24, 24, 1), np.float32))}, Reason.INVALID_REQUEST, 400),
        ({"crops": b"no array"}, Reason.INVALID_REQUEST, 400),
        ({"crops": pack_array(crops(1)), "photo.a": b""}, Reason.INVALID_REQUEST, 400),
        ({}, Reason.INVALID_REQUEST, 400),
        ({"picture": b"x"}, Reason.INVALID_REQUEST, 400),
        ({"options": b"{}"}, Reason.INVALID_REQUEST, 400),
        ({"photo.a": b"", "options": b'{"max_faces": 0}'}, Reason.INVALID_REQUEST, 400),
        ({"body": b"no picture"}, Reason.UNSUPPORTED_MEDIA, 415),
        ({"data": b"\x89PNG\r\n\x1a\n"}, Reason.INVALID_IMAGE, 400),
        ({"body": b"x" * (20 * 2**20 + 1)}, Reason.IMAGE_TOO_LARGE, 413),
    ],
)
def test_a_bad_request_gets_its_code_and_its_neighbours_their_scores(answerer, inputs, expected, status):
    good = {"crops": pack_array(crops(3))}
    before, bad, after = answerer.replies([good, inputs, good])
    assert (reason(bad), bad.status, bad.content_type) == (expected, status, "application/json")
    assert before.body == after.body == pack_array(expected_rows(crops(3)))


def test_a_wrong_shape_says_what_was_expected(answerer):
    (reply,) = answerer.replies([{"crops": pack_array(np.zeros((2, 48, 48, 3), np.uint8))}])
    with pytest.raises(RemoteError, match=r"uint8 crops of shape \(N, 24, 24, 1\), got \(2, 48, 48, 3\)"):
        read_reply(reply.body)


def test_options_reach_detector_and_answer(answerer, model, face_photo):
    options = PhotoOptions(max_faces=1)
    (reply,) = answerer.replies([{"photo.a": face_photo, "options": options.pack()}])
    photo = unpack_photos(reply.body)["a"]
    assert (photo.found, len(photo.faces)) == (3, 1)
    assert model.batches == [1]


def test_a_failing_model_fails_those_with_faces_alone_and_logs_no_content(manifest, model, face_photo, caplog):
    class NoFaces(TwoFaces):
        def detect(self, image, *, size_px=None):  # noqa: ARG002 - as every detector
            return []

    model.error = RuntimeError("tensor([[17, 18]])")
    with caplog.at_level(logging.DEBUG):
        replies = make(model, manifest, NoFaces()).replies([{"crops": pack_array(crops(2))}, {"body": face_photo}])
    assert (reason(replies[0]), replies[0].status) == (Reason.WORKER_FAILED, 503)
    assert json.loads(replies[1].body)["faces"] == []
    assert caplog.messages == ["the model failed on 2 faces: RuntimeError"]


def test_scores_that_are_no_numbers_fail_their_photo_and_reach_the_gateway_as_they_are(answerer, face_photo):
    answerer._score = lambda crops: expected_rows(crops) * np.float32("nan")
    photo, faces = answerer.replies([{"photo.a": face_photo}, {"crops": pack_array(crops(2))}])
    assert (reason(photo), photo.status) == (Reason.WORKER_FAILED, 503)
    assert np.isnan(unpack_array(faces.body, dtype=np.float32)).all()


def test_a_fault_of_the_program_is_one_requests_own(manifest, model, face_photo, caplog):
    class Broken(TwoFaces):
        def detect(self, image, *, size_px=None):  # noqa: ARG002 - as every detector
            raise KeyError(image.tobytes())

    replies = make(model, manifest, Broken()).replies([{"crops": pack_array(crops(2))}, {"body": face_photo}])
    assert replies[0].body == pack_array(expected_rows(crops(2)))
    assert (reason(replies[1]), replies[1].status) == (Reason.INTERNAL, 500)
    assert caplog.messages == ["a request failed: KeyError"]


def test_photos_without_faces_do_not_call_the_model(manifest, model):
    class NoFaces(TwoFaces):
        def detect(self, image, *, size_px=None):  # noqa: ARG002 - as every detector
            return []

    grey = cv2.imencode(".png", np.full((64, 64, 3), 128, np.uint8))[1].tobytes()
    (reply,) = make(model, manifest, NoFaces()).replies([{"body": grey}])
    assert json.loads(reply.body)["faces"] == []
    assert model.batches == []
