import pytest

from ferserve.faces.decode import DecodeLimits, decode
from ferserve.faces.detectors import default_detector
from ferserve.faces.errors import InvalidRequestError
from ferserve.serving.benchmarks.payloads import CROWD_FACES, Payloads, shrunk
from ferserve.serving.benchmarks.stages import synthetic_picture
from ferserve.v1.expression_service_pb2 import AnalyzeRequest, ClassifyFacesRequest


def payloads(data: bytes, *, crops: int | None = None, side_px: int | None = None) -> Payloads:
    return Payloads(data, crops=crops, side_px=side_px, crowd_side_px=640, timeout_s=1.5)


def sides_px(data: bytes) -> tuple[int, int]:
    height_px, width_px = decode(data, DecodeLimits()).pixels.shape[:2]
    return width_px, height_px


def test_a_photo_goes_as_it_is_or_smaller(face_photo: bytes):
    work = payloads(face_photo).work()
    assert (work.method, work.timeout_s) == ("Analyze", 1.5)
    assert AnalyzeRequest.FromString(work.body).image == face_photo
    smaller = AnalyzeRequest.FromString(payloads(face_photo, side_px=200).work().body).image
    assert sides_px(smaller) == (200, 200)
    assert sides_px(shrunk(face_photo, 10_000)) == (512, 512), "never up"


def test_crops_are_of_the_surest_face(face_photo: bytes):
    work = payloads(face_photo, crops=3).work()
    faces = ClassifyFacesRequest.FromString(work.body).faces
    assert (work.method, work.faces, len(faces)) == ("ClassifyFaces", 3, 3)
    assert sides_px(faces[0]) == (112, 112)


def test_a_crowd_is_many_faces_that_are_found(face_photo: bytes):
    crowd = payloads(face_photo).crowd()
    request = AnalyzeRequest.FromString(crowd.body)
    assert sides_px(request.image) == (640, 320)
    assert request.options.detection_size == 640
    found = default_detector().detect(decode(request.image, DecodeLimits()).pixels, size_px=640)
    assert crowd.faces == len(found) >= 0.9 * CROWD_FACES


def test_a_crowd_of_crops_is_exact(face_photo: bytes):
    given = payloads(face_photo, crops=8)
    assert len(ClassifyFacesRequest.FromString(given.crowd().body).faces) == CROWD_FACES == given.crowd().faces
    assert len(ClassifyFacesRequest.FromString(given.selfie().body).faces) == 1


def test_a_picture_without_a_face_is_said_to_be_one():
    flat = shrunk(synthetic_picture(), 64)
    for given in (payloads(flat).selfie, payloads(flat).crowd, payloads(flat, crops=2).work):
        with pytest.raises(InvalidRequestError, match="expected one with a face"):
            given()
    assert payloads(flat).work().body, "what is searched in vain is work too"
