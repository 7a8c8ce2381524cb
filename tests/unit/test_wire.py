import json

import numpy as np
import pytest

from ferserve.faces.errors import InvalidImageError, InvalidRequestError, Reason
from ferserve.faces.labels import LABELS
from ferserve.faces.types import Box, Detection, Quality, QualityIssue, ScoredFace
from ferserve.faces.wire import (
    Description,
    PhotoOptions,
    RemoteError,
    ScoredPhoto,
    pack_error,
    pack_photo,
    pack_photos,
    read_reply,
    unpack_photos,
)

SCORES = np.array([0.1, 0.2, 0.05, 0.4, 0.1, 0.1, 0.05], dtype=np.float32)
POINTS = np.arange(10, dtype=np.float32).reshape(5, 2)


def face(landmarks):
    return ScoredFace(
        detection=Detection(box=Box(x0=1.5, y0=-2.0, x1=30.0, y1=40.25), score=0.75, landmarks=landmarks),
        scores=SCORES,
        uncertain=True,
        quality=Quality(size_px=28.5, sharpness=900.0, yaw=None, roll_deg=3.0, issues=(QualityIssue.SMALL,)),
    )


def photo(*faces):
    times = {"decode_s": 0.001, "detect_s": 0.25, "preprocess_s": 0.5, "infer_s": 0.125}
    return ScoredPhoto(width_px=640, height_px=480, detector="haar", found=3, skipped=1, faces=faces, **times)


def test_photos_come_back_as_they_were_and_a_bad_one_as_its_error():
    sent = {"a": photo(face(POINTS), face(None)), "b": InvalidImageError("expected a whole JPEG"), "c": photo()}
    got = unpack_photos(pack_photos(sent))
    assert list(got) == ["a", "b", "c"]
    assert got["c"] == sent["c"]
    assert (got["b"].reason, got["b"].message) == (Reason.INVALID_IMAGE, "expected a whole JPEG")
    assert [getattr(got["a"], name) for name in ("width_px", "height_px", "found", "skipped")] == [640, 480, 3, 1]
    assert got["a"].detect_s == pytest.approx(0.25)
    for ours, theirs in zip(sent["a"].faces, got["a"].faces, strict=True):
        assert (theirs.detection.box, theirs.detection.score) == (ours.detection.box, ours.detection.score)
        assert (theirs.uncertain, theirs.quality) == (ours.uncertain, ours.quality)
        np.testing.assert_array_equal(theirs.scores, ours.scores)
        assert theirs.scores.dtype == np.float32
    np.testing.assert_array_equal(got["a"].faces[0].detection.landmarks, POINTS)
    assert got["a"].faces[1].detection.landmarks is None


def test_one_photo_reads_as_json_with_its_labels():
    value = json.loads(pack_photo(photo(face(None))))
    (first,) = value["faces"]
    assert list(first["scores"]) == list(LABELS)
    assert first["expression"] == "happy"
    assert first["box"] == [1.5, -2.0, 30.0, 40.25]
    assert value["timings_ms"] == {"decode": 1.0, "detect": 250.0, "preprocess": 500.0, "infer": 125.0}
    assert json.loads(pack_photo(InvalidImageError("no"))) == {"error": {"reason": "INVALID_IMAGE", "message": "no"}}


@pytest.mark.parametrize(
    ("body", "reason", "message"),
    [
        (pack_error(InvalidRequestError("expected x")), Reason.INVALID_REQUEST, "expected x"),
        (b'{"error": {"reason": "SURPRISING"}}', Reason.INTERNAL, "without a known reason"),
        (b'{"error": 7}', Reason.INTERNAL, "without a known reason"),
        (
            b'{"code": 503, "type": "InternalServerException", "message": "Prediction failed"}',
            Reason.WORKER_FAILED,
            "TorchServe: 503 InternalServerException",
        ),
    ],
)
def test_errors_are_recognised_ours_and_torchserves(body, reason, message):
    with pytest.raises(RemoteError, match=message) as caught:
        read_reply(body)
    assert caught.value.reason is reason
    with pytest.raises(RemoteError):
        unpack_photos(body)


@pytest.mark.parametrize("body", [b"", b"\xff", b"[]", b"3", b"[" * 100_000])
def test_what_is_no_object_is_refused(body):
    with pytest.raises(InvalidRequestError, match="expected a JSON object"):
        read_reply(body)


@pytest.mark.parametrize("body", [b'{"a": 3}', b'{"a": {"width_px": 1}}', b'{"a": {"faces": null}}'])
def test_photos_of_another_form_are_refused(body):
    with pytest.raises(InvalidRequestError, match="JSON of another form"):
        unpack_photos(body)


def test_options_are_read_strictly():
    options = PhotoOptions(detection_size_px=320, max_faces=2)
    assert PhotoOptions.unpack(options.pack()) == options
    assert PhotoOptions.unpack(b"{}") == PhotoOptions()
    for text, message in [
        (b'{"size": 3}', "expected keys of"),
        (b'{"max_faces": 0}', "max_faces: expected a whole number from 1"),
        (b'{"max_faces": true}', "max_faces: expected a whole number from 1"),
        (b'{"detection_size_px": 1.5}', "detection_size_px: expected a whole number"),
        (b'{"exact": 1}', "exact: expected true or false"),
        (b"[]", "expected a JSON object"),
    ]:
        with pytest.raises(InvalidRequestError, match=message):
            PhotoOptions.unpack(text)


def test_a_description_is_read_strictly():
    described = Description(
        model="m",
        version="1",
        program_sha256="a",
        preprocess_sha256="b",
        precision="fp32",
        device="cpu",
        detector="haar",
    )
    assert Description.unpack(described.pack()) == described
    with pytest.raises(InvalidRequestError, match="expected a description"):
        Description.unpack(b'{"model": "m"}')
    with pytest.raises(RemoteError):
        Description.unpack(pack_error(InvalidRequestError("no")))
