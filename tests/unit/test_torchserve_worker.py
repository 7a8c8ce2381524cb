"""The worker against a real gRPC server of TorchServe's service, behind which the archive's real handler answers."""

import asyncio
from contextlib import AsyncExitStack

import numpy as np
import pytest
from tests.made_up.torchserve_service import torchserve_service

from ferserve.faces.archive import read_archive
from ferserve.faces.arrays import pack_array
from ferserve.faces.decode import DecodeLimits, decode
from ferserve.faces.detectors import default_detector
from ferserve.faces.errors import ArchiveError, Reason
from ferserve.faces.precision import resolve_precision
from ferserve.faces.preprocess import face_crop
from ferserve.faces.session import ScoringSession
from ferserve.faces.wire import PhotoOptions
from ferserve.handlers.question import Reply
from ferserve.serving.errors import WorkerFailedError
from ferserve.serving.workers.config import WorkersConfig
from ferserve.serving.workers.protocol import check_shape
from ferserve.serving.workers.torchserve import TorchServeWorker

SHAPE = (24, 24, 1)
ERROR = b'{"error": {"reason": "INVALID_REQUEST", "message": "expected something else"}}'
FAILED = b'{"code": 503, "type": "InternalServerException", "message": "/srv/secret failed"}'


@pytest.fixture(scope="module")
def archive(pack_archive):
    return read_archive(pack_archive("tiny", program=b"its hash alone matters here"))


@pytest.fixture(scope="module")
def session(archive):
    return ScoringSession.from_archive(archive)


@pytest.fixture
async def serve(archive):
    """Start a server; gives it and its endpoint."""
    async with AsyncExitStack() as running:

        async def start(**described):
            return await running.enter_async_context(torchserve_service(archive, **described))

        yield start


def config(endpoint, call_timeout_s=30.0):
    return WorkersConfig(kind="torchserve", endpoints=(endpoint,), call_timeout_s=call_timeout_s)


@pytest.fixture
async def started(archive, serve):
    service, endpoint = await serve()
    worker = await TorchServeWorker.start(archive, endpoint, config(endpoint), precision="fp32")
    service.remaining_s.clear()
    yield service, worker
    await worker.close()


def crops(faces):
    return np.random.default_rng(faces).integers(0, 256, (faces, *SHAPE), dtype=np.uint8)


async def test_scores_are_those_of_the_archive(started, session):
    _, worker = started
    for faces in (1, 5, 600):
        np.testing.assert_allclose(
            await worker.infer(crops(faces), timeout_s=30), session.score(crops(faces)), atol=1e-6
        )
    await worker.probe()
    info = worker.describe()
    assert (info.kind, info.model, info.version, info.crop_shape) == ("torchserve", "tiny", "0.0.1", SHAPE)
    assert (info.precision, worker.concurrency) == ("fp32", 1)
    assert info.detail.startswith("TorchServe at 127.0.0.1:")


async def test_the_deadline_travels_to_the_server(started):
    service, worker = started
    await worker.infer(crops(1), timeout_s=20)
    assert 10 < service.remaining_s[0] < 30  # as gRPC rounds it
    service.hold = asyncio.Event()
    with pytest.raises(TimeoutError, match="no answer from TorchServe in time"):
        await worker.infer(crops(1), timeout_s=0.05)


async def test_a_cancelled_batch_is_cancelled_on_the_server(started):
    service, worker = started
    service.hold = asyncio.Event()
    waiting = asyncio.create_task(worker.infer(crops(1), timeout_s=60))
    await service.was_asked.wait()
    waiting.cancel()
    await service.was_cancelled.wait()
    with pytest.raises(asyncio.CancelledError):
        await waiting


@pytest.mark.parametrize(
    ("body", "message", "logged"),
    [
        (ERROR, "TorchServe answered INVALID_REQUEST to 2 faces", "expected something else"),
        (FAILED, "TorchServe answered WORKER_FAILED to 2 faces", "503 InternalServerException"),
        (b"", "expected an answer to 2 faces from TorchServe: expected a JSON object, got 0", None),
        (b"\x00" * 30, "expected an answer to 2 faces from TorchServe: expected a JSON object", None),
        (b'{"faces": []}', "expected an answer to 2 faces from TorchServe: expected a .npy file", None),
        (pack_array(np.zeros((2, 7))), "expected float32 in rows, got float64", None),
        (pack_array(np.zeros((2, 7), np.float32))[:-4], "expected 56 bytes behind the header", None),
    ],
)
async def test_an_ok_that_is_none_is_a_failure(started, caplog, body, message, logged):
    service, worker = started
    service.replace = body
    with pytest.raises(WorkerFailedError, match=message) as caught:
        await worker.infer(crops(2), timeout_s=30)
    assert "secret" not in caught.value.message
    if logged is not None:
        assert logged in caplog.text
    service.replace = None
    await worker.probe()


async def test_too_few_rows_and_nan_reach_those_who_judge_them(started):
    service, worker = started
    service.replace = pack_array(np.full((1, 7), 0.125, np.float32))
    scores = await worker.infer(crops(2), timeout_s=30)
    with pytest.raises(WorkerFailedError, match=r"expected float32 scores of shape \(2, 7\)"):
        check_shape(scores, 2)
    service.replace = pack_array(np.full((1, 7), np.nan, np.float32))
    assert np.isnan(await worker.infer(crops(1), timeout_s=30)).all()
    with pytest.raises(WorkerFailedError, match="finite"):
        await worker.probe()


async def test_photos_come_back_under_their_names_with_the_scores_of_their_crops(started, session, archive, face_photo):
    _, worker = started
    sent = {"first": face_photo, "second": b"no picture", "third": face_photo}
    got = await worker.photos(sent, PhotoOptions(max_faces=1), timeout_s=60)
    assert list(got) == list(sent)
    assert got["second"].reason is Reason.UNSUPPORTED_MEDIA
    image = decode(face_photo, DecodeLimits()).pixels
    (found,) = default_detector().detect(image)
    expected = session.score(face_crop(image, found, archive.manifest.preprocess)[None])[0]
    for name in ("first", "third"):
        (face,) = got[name].faces
        np.testing.assert_allclose(face.scores, expected, atol=1e-6)
        assert face.detection.box == found.box


@pytest.mark.parametrize(
    ("body", "message"),
    [(b"{}", "expected 1 photos by their names, got 0"), (ERROR, "answered INVALID_REQUEST to 1 photos")],
)
async def test_photos_that_are_not_answered_are_a_failure(started, body, message):
    service, worker = started
    service.answerer.replies = lambda _requests: [Reply(body=body, content_type="application/json")]
    with pytest.raises(WorkerFailedError, match=message):
        await worker.photos({"a": b"never looked at"}, PhotoOptions(), timeout_s=60)


@pytest.mark.parametrize("rows", [np.full((2, 7), np.nan, np.float32), np.zeros((1, 7), np.float32)])
async def test_a_server_that_gives_wrong_answers_is_not_started(archive, serve, rows):
    service, endpoint = await serve()
    service.replace = pack_array(rows)
    with pytest.raises(WorkerFailedError, match="expected"):
        await TorchServeWorker.start(archive, endpoint, config(endpoint), precision="fp32")


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"program_sha256": "0" * 64}, "it serves another archive"),
        ({"preprocess_sha256": "0" * 64}, "it serves another archive"),
        ({"version": "2"}, "expected tiny 0.0.1 .* got 2"),
        ({"precision": "fp16", "device": "cuda:0"}, "expected fp32, it computes in fp16 on cuda:0"),
    ],
)
async def test_another_model_under_the_same_name_is_not_used(archive, serve, other, message):
    _, endpoint = await serve(**other)
    with pytest.raises(WorkerFailedError, match=message):
        await TorchServeWorker.start(archive, endpoint, config(endpoint), precision="fp32")


async def test_half_precision_is_used_where_it_was_asked_for(archive, serve):
    _, endpoint = await serve(precision="fp16")
    worker = await TorchServeWorker.start(archive, endpoint, config(endpoint), precision="fp16")
    assert worker.describe().precision == "fp16"
    await worker.close()
    with pytest.raises(ArchiveError, match="precision fp16: expected workers on TorchServe with a GPU"):
        resolve_precision("fp16", archive, cpu=None)


async def test_a_model_that_is_not_there_a_server_that_is_not_ours_or_none_at_all(archive, serve, caplog):
    service, endpoint = await serve()
    service.model = "other"
    with pytest.raises(WorkerFailedError, match="TorchServe answered INTERNAL") as caught:
        await TorchServeWorker.start(archive, endpoint, config(endpoint), precision="fp32")
    assert "secret" not in caught.value.message
    assert "not found in" in caplog.text
    service.model = "tiny"
    service.answerer.replies = lambda _requests: [Reply(body=b"hello", content_type="text/plain")]
    with pytest.raises(WorkerFailedError, match="expected a ferserve archive as tiny, got: expected a JSON object"):
        await TorchServeWorker.start(archive, endpoint, config(endpoint), precision="fp32")
    nobody = "127.0.0.1:1"
    with pytest.raises((WorkerFailedError, TimeoutError)):
        await TorchServeWorker.start(archive, nobody, config(nobody, call_timeout_s=1.0), precision="fp32")


async def test_after_closing_every_call_fails_in_our_own_words(started):
    _, worker = started
    await worker.close()
    with pytest.raises(WorkerFailedError, match="closed"):
        await worker.infer(crops(1), timeout_s=1)
