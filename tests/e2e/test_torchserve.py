"""The default archive on a real TorchServe, as it ships: asked directly, and behind a real gateway."""

import asyncio
import io
import json
import os
import signal
import sys
import time
from itertools import repeat
from pathlib import Path

import grpc
import httpx
import numpy as np
import pytest
import skimage.data
from PIL import Image
from tests.e2e.torchserve_server import TorchServe

from ferserve.faces.arrays import pack_array, unpack_array
from ferserve.faces.decode import DecodeLimits, decode
from ferserve.faces.detectors import default_detector
from ferserve.faces.errors import FerserveError, Reason
from ferserve.faces.index import open_archive
from ferserve.faces.labels import LABELS
from ferserve.faces.preprocess import face_crop
from ferserve.faces.session import ScoringSession
from ferserve.faces.wire import PhotoOptions, RemoteError, read_reply, unpack_photos
from ferserve.serving.benchmarks.capacity import goodput_blocks
from ferserve.serving.benchmarks.estimates import Samples, estimate, mean, ratio
from ferserve.serving.benchmarks.exchanges import Ending
from ferserve.serving.benchmarks.gateways import read_counters
from ferserve.serving.benchmarks.generator import Generator
from ferserve.serving.benchmarks.load import batch_counts
from ferserve.serving.benchmarks.payloads import Payloads
from ferserve.serving.benchmarks.transports import GrpcTransport
from ferserve.serving.client import Client
from ferserve.serving.errors import WorkerFailedError
from ferserve.serving.workers.config import WorkersConfig
from ferserve.serving.workers.torchserve import TorchServeWorker
from ferserve.torchserve.inference_service_pb2 import PredictionsRequest
from ferserve.torchserve.inference_service_pb2_grpc import InferenceAPIsServiceStub
from ferserve.torchserve.management_service_pb2 import DescribeModelRequest
from ferserve.torchserve.management_service_pb2_grpc import ManagementAPIsServiceStub

pytestmark = pytest.mark.e2e
CROPS = 96
TOLERANCE = 1e-3
LOADING_S = 120
MODEL = "mobilenet"
CALLERS, TURNS, TURN_S = 32, 6, 4.0


@pytest.fixture(scope="module")
def photo():
    buffer = io.BytesIO()
    Image.fromarray(skimage.data.astronaut()).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def crop(photo):
    image = decode(photo, DecodeLimits()).pixels
    (face,) = default_detector().detect(image)
    return face_crop(image, face, open_archive("default").manifest.preprocess)


@pytest.fixture(scope="module")
def crops(crop):
    """One real face under light, noise, shift and mirror, so that the scores are not all alike."""
    rng = np.random.default_rng(0)
    varied = []
    for _ in range(CROPS):
        one = np.roll(crop[:, :, 0].astype(np.float32), rng.integers(-8, 9, 2), (0, 1))
        one = one[:, ::-1] if rng.random() < 0.5 else one
        one = one * rng.uniform(0.3, 1.5) + rng.uniform(-60, 60) + rng.normal(0, rng.uniform(0, 40), one.shape)
        varied.append(np.clip(one, 0, 255).astype(np.uint8)[:, :, None])
    return np.stack(varied)


@pytest.fixture(scope="module")
def session():
    return ScoringSession.from_archive(open_archive("default"), precision="fp32")


@pytest.fixture(scope="module")
def torchserve(tmp_path_factory):
    server = TorchServe(tmp_path_factory.mktemp("torchserve"))
    ask(server.grpc, {"describe": b""})  # waits until the worker has loaded
    yield server
    worker_pid = pid_of_worker(server)
    assert server.stop() == 128 + signal.SIGTERM
    assert not Path(f"/proc/{worker_pid}").exists(), "the server's worker outlived it"


@pytest.fixture
async def worker(torchserve):
    config = WorkersConfig(kind="torchserve", endpoints=(torchserve.grpc,), call_timeout_s=60)
    worker = await TorchServeWorker.start(open_archive("default"), torchserve.grpc, config, precision="fp32")
    yield worker
    await worker.close()


def ask(endpoint, inputs, timeout_s=LOADING_S):
    with grpc.insecure_channel(endpoint) as channel:
        request = PredictionsRequest(model_name=MODEL, input=inputs)
        return InferenceAPIsServiceStub(channel).Predictions(request, timeout=timeout_s).prediction


def post(server, content, **other):
    headers = {"content-type": "application/octet-stream"}
    return httpx.post(f"{server.rest}/predictions/{MODEL}", content=content, headers=headers, timeout=60, **other)


def check_same(scores, expected):
    assert len(set(expected.argmax(axis=1))) >= 3, "crops that all score alike would show little"
    assert np.abs(scores - expected).max() < TOLERANCE
    assert (scores.argmax(axis=1) == expected.argmax(axis=1)).all()


async def test_crops_score_as_they_do_in_the_gateway(worker, crops, session):
    check_same(await worker.infer(crops, timeout_s=60), session.score(crops))
    await worker.probe()


def test_a_message_larger_than_torchserves_own_limit_passes(torchserve):
    with pytest.raises(RemoteError, match="got 7000000 other bytes"):
        read_reply(ask(torchserve.grpc, {"crops": b"x" * 7_000_000}))


async def test_crops_of_another_shape_are_refused_by_name_and_the_worker_goes_on(torchserve, worker):
    wrong = pack_array(np.zeros((2, 40, 48, 1), np.uint8))
    answer = post(torchserve, wrong)
    assert answer.status_code == 400
    expected = "expected uint8 crops of shape (N, 48, 48, 1), got (2, 40, 48, 1)"
    assert answer.json() == {"error": {"reason": "INVALID_REQUEST", "message": expected}}
    with pytest.raises(WorkerFailedError, match="answered INVALID_REQUEST to 2 faces"):
        await worker.infer(np.zeros((2, 40, 48, 1), np.uint8), timeout_s=60)
    await worker.probe()


def test_a_photo_goes_in_by_curl_and_its_faces_come_out(torchserve, photo, crop, session):
    answer = post(torchserve, photo)
    assert answer.status_code == 200
    (face,) = answer.json()["faces"]
    assert face["expression"] == "happy"
    expected = session.score(crop[None])[0]
    assert np.abs([face["scores"][label] for label in LABELS] - expected).max() < TOLERANCE
    crops_by_rest = post(torchserve, pack_array(crop[None]))
    assert np.abs(unpack_array(crops_by_rest.content, dtype=np.float32)[0] - expected).max() < TOLERANCE


def test_of_many_photos_a_bad_one_is_an_error_in_its_own_place(torchserve, photo, crop, session):
    sent = {"photo.a": photo, "photo.b": photo[:5000], "photo.c": b"no picture", "photo.d": photo}
    photos = unpack_photos(ask(torchserve.grpc, sent | {"options": PhotoOptions(max_faces=3).pack()}))
    assert sorted(photos) == ["a", "b", "c", "d"]
    assert (photos["b"].reason, photos["c"].reason) == (Reason.INVALID_IMAGE, Reason.UNSUPPORTED_MEDIA)
    expected = session.score(crop[None])[0]
    for name in "ad":
        assert np.abs(photos[name].faces[0].scores - expected).max() < TOLERANCE
    by_form = httpx.post(
        f"{torchserve.rest}/predictions/{MODEL}", files={"photo.a": photo, "photo.b": b"x"}, timeout=60
    )
    assert sorted(by_form.json()) == ["a", "b"]


def test_a_bad_photo_alone_has_its_status(torchserve, photo):
    bad, other = post(torchserve, photo[:5000]), post(torchserve, b"no picture")
    assert (bad.status_code, bad.json()["error"]["reason"]) == (400, "INVALID_IMAGE")
    assert (other.status_code, other.json()["error"]["reason"]) == (415, "UNSUPPORTED_MEDIA")


def test_a_gateway_scores_on_it(torchserve, start_gateway, photo, crop, session):
    served = start_gateway("--workers", "torchserve", "--endpoint", torchserve.grpc)
    with Client(served.grpc) as client:
        answer = client.analyze(photo, timeout_s=60)
    assert answer.model.precision == "fp32"
    assert np.abs(answer.faces[0].scores - session.score(crop[None])[0]).max() < TOLERANCE
    (model,) = httpx.get(f"{served.admin}/status").json()["models"]
    assert (model["worker"]["kind"], model["workers"][0]["circuit"]) == ("torchserve", "closed")


def test_a_gateway_in_photo_mode_has_photos_searched_there(torchserve, start_gateway, photo, crop, session, tmp_path):
    settings = tmp_path / "gateway.toml"
    settings.write_text(
        f'[workers]\nkind = "torchserve"\nendpoints = ["{torchserve.grpc}"]\nphoto_mode = true\ncall_timeout_s = 60.0\n'
    )
    served = start_gateway("--config", str(settings))
    with Client(served.grpc) as client:
        whole, cut_off = client.analyze_batch([photo, photo[:5000]], timeout_s=60)
    (face,) = whole.faces
    assert (face.expression.label, whole.detector) == ("happy", default_detector().name)
    assert np.abs(face.scores - session.score(crop[None])[0]).max() < TOLERANCE
    assert whole.timings.detect_ms > 0
    assert cut_off.reason is Reason.INVALID_IMAGE


def test_it_says_little_and_writes_no_files(torchserve, photo):
    """A warning a request, or a log file that grows, would show content or fill a disk."""
    before = torchserve.log.stat().st_size
    for _ in range(5):
        post(torchserve, photo[:5000])
    assert torchserve.log.stat().st_size == before, torchserve.log.read_text()[before:]
    folder = torchserve.log.parent / "server"
    assert {path.name for path in folder.iterdir()} == {"config.properties", "log4j2.xml", "model-store", "tmp"}


def pid_of_worker(server):
    with grpc.insecure_channel(server.management) as channel:
        request = DescribeModelRequest(model_name=MODEL)
        message = ManagementAPIsServiceStub(channel).DescribeModel(request, timeout=30).msg
    return int(json.loads(message)[0]["workers"][0]["pid"])


@pytest.fixture
def gateway(torchserve, start_gateway):
    served = start_gateway("--workers", "torchserve", "--endpoint", torchserve.grpc)
    answers_again(served, grey_face(), within_s=60)
    return served


def grey_face():
    buffer = io.BytesIO()
    Image.fromarray(np.full((48, 48), 128, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def score(client, crop, timeout_s=2):
    (item,) = client.classify([crop], timeout_s=timeout_s).items
    if isinstance(item, FerserveError):
        raise item


def answers_again(served, crop, within_s):
    """Seconds until a gateway scores a face."""
    began_s = time.monotonic()
    with Client(served.grpc) as client:
        while True:
            try:
                score(client, crop)
            except FerserveError:
                if time.monotonic() - began_s > within_s:
                    raise
                time.sleep(0.1)
            else:
                return time.monotonic() - began_s


@pytest.mark.long
def test_a_killed_worker_comes_back(torchserve, gateway, capsys):
    os.kill(pid_of_worker(torchserve), signal.SIGKILL)
    took_s = answers_again(gateway, grey_face(), within_s=90)
    with capsys.disabled():
        sys.stdout.write(f"\nTorchServe's worker killed: faces scored again after {took_s:.1f} s\n")


@pytest.mark.long
def test_a_killed_server_comes_back_once_it_is_started_again(torchserve, gateway, capsys):
    torchserve.process.kill()
    torchserve.process.wait(timeout=30)
    with Client(gateway.grpc) as client, pytest.raises(FerserveError) as caught:
        score(client, grey_face(), timeout_s=0.5)
    assert caught.value.reason in {Reason.NOT_READY, Reason.WORKER_FAILED, Reason.DEADLINE}
    began_s = time.monotonic()
    torchserve.start()
    listens_s = time.monotonic() - began_s
    answers_again(gateway, grey_face(), within_s=120)
    took_s = time.monotonic() - began_s
    with capsys.disabled():
        sys.stdout.write(
            f"\nTorchServe killed and started: listens after {listens_s:.1f} s, scores after {took_s:.1f} s\n"
        )


@pytest.mark.long
def test_faces_of_many_callers_in_one_batch_are_worth_more_than_single_requests(gateway, photo, tell):
    work = Payloads(photo, crops=1, side_px=None, crowd_side_px=640, timeout_s=30.0).work()
    blocks: dict[int, list[Samples]] = {1: [], CALLERS: []}
    before = read_counters(gateway.admin)

    async def measure() -> None:
        async with Generator(GrpcTransport(gateway.grpc)) as generator:
            await generator.connect()
            for _ in range(TURNS):
                for callers, measured in blocks.items():
                    exchanges = await generator.keep_busy(repeat(work), callers, TURN_S)
                    assert {exchange.ending for exchange in exchanges} == {Ending.OK}
                    measured.extend(goodput_blocks(exchanges, TURN_S))

    asyncio.run(measure())
    one, many = (estimate(measured, mean).value for measured in blocks.values())
    gain = ratio(blocks[CALLERS], blocks[1], mean)
    batches = batch_counts(read_counters(gateway.admin).since(before).batches)
    tell(
        f"TorchServe, faces a second: one request at a time {one:.0f}, {CALLERS} callers in batches {many:.0f}: "
        f"{gain.value:.1f} times as many ({gain.low:.1f} to {gain.high:.1f}); batches up to so many faces: "
        + ", ".join(f"{most:g}: {count}" for most, count in batches.items())
    )
    assert gain.low > 1  # how much it is depends on the machine, and stands in what was told
