"""The spine: one real photo through every door of a real gateway, with the archive that ships."""

import io
import json
import subprocess

import httpx
import numpy as np
import pytest
import skimage.data
from PIL import Image

from ferserve.faces.decode import DecodeLimits, decode
from ferserve.faces.detectors import default_detector
from ferserve.faces.errors import InvalidImageError, Reason
from ferserve.faces.index import open_archive
from ferserve.faces.labels import LABELS, Expression
from ferserve.faces.preprocess import face_crop
from ferserve.faces.session import ScoringSession
from ferserve.serving.client import Client
from ferserve.serving.requests import ImageAnalysis

pytestmark = pytest.mark.e2e
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def photo():
    buffer = io.BytesIO()
    Image.fromarray(skimage.data.astronaut()).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def expected(photo):
    """The scores by the core alone: decode, detect, crop, one run of the graph."""
    image = decode(photo, DecodeLimits()).pixels
    (face,) = default_detector().detect(image)
    archive = open_archive("default")
    crop = face_crop(image, face, archive.manifest.preprocess)
    return ScoringSession.from_archive(archive, precision="auto").score(crop[None])[0]


@pytest.fixture(scope="module")
def client(served):
    with Client(served.grpc) as client:
        yield client


def test_the_astronaut_is_one_happy_face(expected, photo, client):
    assert Expression(int(expected.argmax())) is Expression.HAPPY
    (face,) = client.analyze(photo).faces
    assert face.expression is Expression.HAPPY
    assert np.abs(face.scores - expected).max() < TOLERANCE


def test_a_batch_of_64_with_a_corrupt_neighbour_gives_the_same(expected, photo, client):
    images = [photo] * 64
    images[17] = photo[: len(photo) // 2]
    answers = client.analyze_batch(images, timeout_s=120)
    assert len(answers) == 64
    assert isinstance(answers[17], InvalidImageError)
    for answer in answers[:17] + answers[18:]:
        assert isinstance(answer, ImageAnalysis)
        assert np.abs(answer.faces[0].scores - expected).max() < TOLERANCE


def test_rest_gives_the_same_whole_and_in_parts(expected, photo, served):
    whole = httpx.post(f"{served.rest}/v1/images:analyze", content=photo, headers={"content-type": "image/png"})
    parts = httpx.post(f"{served.rest}/v1/images:analyze", files={"image": ("a.png", photo, "image/png")})
    for answer in (whole, parts):
        assert answer.status_code == 200, answer.text
        (face,) = answer.json()["faces"]
        assert np.abs([face["scores"][label] for label in LABELS] - expected).max() < TOLERANCE
        assert face["expression"] == "EXPRESSION_HAPPY"
        timings = answer.json()["timings"]
        assert timings["detect_ms"] > 0
        assert timings["infer_ms"] > 0
        assert timings["total_ms"] >= timings["decode_ms"] + timings["detect_ms"]


def test_the_stream_gives_the_same(expected, photo, client):
    frames = [(7, photo), (8, b"no picture"), (9, photo)]
    outcomes = {reply.id: reply.outcome for reply in client.stream(frames)}
    assert sorted(outcomes) == [7, 8, 9]
    assert outcomes[8].reason is Reason.UNSUPPORTED_MEDIA
    good = [outcomes[7], outcomes[9]]
    for analysis in good:
        assert np.abs(analysis.faces[0].scores - expected).max() < TOLERANCE


def test_a_ready_made_crop_gives_what_the_graph_gives(photo, client):
    archive = open_archive("default")
    image = decode(photo, DecodeLimits()).pixels
    (face,) = default_detector().detect(image)
    crop = face_crop(image, face, archive.manifest.preprocess)
    buffer = io.BytesIO()
    Image.fromarray(crop[:, :, 0]).save(buffer, "PNG")
    (item,) = client.classify([buffer.getvalue()]).items
    expected = ScoringSession.from_archive(archive, precision="auto").score(crop[None])[0]
    assert np.abs(item.scores - expected).max() < TOLERANCE


def test_the_command_line_gives_the_same(expected, photo, tmp_path, ferserve_command):
    (tmp_path / "faces").mkdir()
    (tmp_path / "faces" / "astronaut.png").write_bytes(photo)
    (tmp_path / "faces" / "broken.png").write_bytes(photo[:1000])
    out = tmp_path / "rows.jsonl"
    command = [ferserve_command, "score", str(tmp_path / "faces"), "--out", str(out)]
    subprocess.run(command, check=True, timeout=120, capture_output=True)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    good = next(row for row in rows if row["status"] == "ok")
    bad = next(row for row in rows if row["status"] == "error")
    assert np.abs([good[label] for label in LABELS] - expected).max() < TOLERANCE
    assert bad["code"] == "INVALID_IMAGE"


def test_metrics_count_what_was_asked(photo, served, client):
    client.analyze(photo)
    text = httpx.get(f"{served.admin}/metrics").text
    assert 'ferserve_requests_total{code="OK"' in text
    assert "ferserve_stage_duration_seconds" in text


def test_models_are_listed_with_their_hash(client, served):
    archive = open_archive("default")
    (model,) = client.models()
    assert (model.name, model.archive_sha256, model.is_default) == ("mobilenet", archive.sha256, True)
    assert httpx.get(f"{served.rest}/v1/models").json()["models"][0]["ref"]["archive_sha256"] == archive.sha256
    assert httpx.get(f"{served.rest}/v1/models/nothing").status_code == 404


def test_sigterm_ends_with_zero(start_gateway):
    assert start_gateway().stop() == 0


def test_an_altered_archive_does_not_start(tmp_path, ferserve_command):
    archive = open_archive("default")
    altered = tmp_path / "altered.mar"
    data = bytearray(archive.path.read_bytes())
    data[len(data) // 2] ^= 1
    altered.write_bytes(data)
    for path in (altered, tmp_path / "missing.mar"):
        command = [ferserve_command, "serve", "--model", str(path), "--sha256", archive.sha256]
        ended = subprocess.run(command, check=False, timeout=60, capture_output=True, text=True)
        assert ended.returncode == 1
        assert path.name in ended.stderr
        assert archive.sha256 in "".join(ended.stderr.split())
        assert "Traceback" not in ended.stderr
