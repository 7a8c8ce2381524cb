"""The default archive on a real Triton behind a real gateway."""

import asyncio
import io
import json
import subprocess
import time

import httpx
import numpy as np
import pytest
import skimage.data
from PIL import Image
from tests.e2e.triton_server import TritonServer
from tritonclient.grpc.aio import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException

from ferserve.faces.decode import DecodeLimits, decode
from ferserve.faces.detectors import default_detector
from ferserve.faces.index import open_archive
from ferserve.faces.preprocess import face_crop
from ferserve.serving.client import Client
from ferserve.serving.errors import NotReadyError, WorkerFailedError
from ferserve.serving.workers.config import WorkersConfig
from ferserve.serving.workers.triton import TritonWorker, _infer_error

pytestmark = pytest.mark.e2e
CROPS = 96
TOLERANCE = 1e-3
FIRST_LOAD_S = 60


@pytest.fixture(scope="module")
def photo():
    buffer = io.BytesIO()
    Image.fromarray(skimage.data.astronaut()).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def crops(photo):
    """One real face under light, blur, noise, shift and mirror, so that the scores are not all alike."""
    image = decode(photo, DecodeLimits()).pixels
    (face,) = default_detector().detect(image)
    crop = face_crop(image, face, open_archive("default").manifest.preprocess)[:, :, 0].astype(np.float32)
    rng = np.random.default_rng(0)
    varied = []
    for _ in range(CROPS):
        one = np.roll(crop, rng.integers(-8, 9, 2), (0, 1))
        one = one[:, ::-1] if rng.random() < 0.5 else one
        one = one * rng.uniform(0.3, 1.5) + rng.uniform(-60, 60) + rng.normal(0, rng.uniform(0, 40), one.shape)
        varied.append(np.clip(one, 0, 255).astype(np.uint8))
    return varied


@pytest.fixture(scope="module")
def repository(tmp_path_factory, ferserve_command):
    """A repository that the command wrote."""
    folder = tmp_path_factory.mktemp("triton") / "models"
    done = subprocess.run(
        [ferserve_command, "triton", "default", "--out", folder, "--json"], check=True, capture_output=True, timeout=120
    )
    assert (folder / json.loads(done.stdout)["model"] / "config.pbtxt").is_file()
    return folder


@pytest.fixture(scope="module")
def triton(repository, tmp_path_factory):
    server = TritonServer(repository, tmp_path_factory.mktemp("triton-log") / "triton.log")
    yield server
    server.stop()


@pytest.fixture(scope="module")
def gateway(start_gateway, triton):
    """A gateway on Triton; the first look of its pool loads the model there."""
    served = start_gateway("--workers", "triton", "--endpoint", triton.endpoint, "--precision", "fp32")
    return ready(served)


def ready(served, within_s=FIRST_LOAD_S):
    ends_s = time.monotonic() + within_s
    while httpx.get(f"{served.rest}/readyz").status_code != 200:
        assert time.monotonic() < ends_s, httpx.get(f"{served.admin}/status").text
        time.sleep(0.1)
    return served


def png(crop):
    buffer = io.BytesIO()
    Image.fromarray(crop).save(buffer, "PNG")
    return buffer.getvalue()


def test_triton_gives_what_the_embedded_worker_gives(gateway, start_gateway, crops, photo):
    embedded = start_gateway("--precision", "fp32")
    encoded = [png(crop) for crop in crops]
    with Client(gateway.grpc) as remote, Client(embedded.grpc) as local:
        there, here = remote.classify(encoded, timeout_s=60), local.classify(encoded, timeout_s=60)
        assert (there.model.precision, here.model.precision) == ("fp32", "fp32")
        scores = np.stack([item.scores for item in there.items])
        expected = np.stack([item.scores for item in here.items])
        assert len(scores) == CROPS
        assert len(set(expected.argmax(axis=1))) >= 3, "crops that all score alike would show little"
        assert np.abs(scores - expected).max() < TOLERANCE
        assert (scores.argmax(axis=1) == expected.argmax(axis=1)).all()
        (face,), (same,) = remote.analyze(photo, timeout_s=60).faces, local.analyze(photo, timeout_s=60).faces
        assert np.abs(face.scores - same.scores).max() < TOLERANCE


def test_operators_see_the_worker(gateway, triton):
    (model,) = httpx.get(f"{gateway.admin}/status").json()["models"]
    assert model["worker"]["kind"] == "triton"
    (worker,) = model["workers"]
    assert (worker["name"], worker["circuit"]) == (triton.endpoint, "closed")
    metrics = httpx.get(f"{gateway.admin}/metrics").text
    assert f'ferserve_worker_up{{model="mobilenet",worker="{triton.endpoint}"}} 1.0' in metrics


def test_a_gateway_whose_model_is_not_there_is_not_ready_and_says_what_to_do(start_gateway, triton):
    served = start_gateway("--workers", "triton", "--endpoint", triton.endpoint, "--precision", "int8")
    assert httpx.get(f"{served.rest}/readyz").status_code == 503
    with Client(served.grpc) as client, pytest.raises(NotReadyError, match="without a worker"):
        client.classify([b"never looked at"], timeout_s=0.3)
    (model,) = httpx.get(f"{served.admin}/status").json()["models"]
    told = model["workers"][0]["last_failure"]
    assert "expected a model mobilenet-" in told
    assert "-int8 in its repository" in told
    assert "ferserve triton" in told


@pytest.mark.long
def test_a_gateway_without_a_triton_is_not_ready_until_there_is_one(start_gateway, repository, tmp_path):
    first = TritonServer(repository, tmp_path / "first.log")
    first.stop()
    served = start_gateway("--workers", "triton", "--endpoint", first.endpoint, "--precision", "fp32")
    assert httpx.get(f"{served.rest}/readyz").status_code == 503
    second = TritonServer(repository, tmp_path / "second.log", port=int(first.endpoint.rpartition(":")[2]))
    try:
        ready(served)
    finally:
        second.stop()


@pytest.fixture
async def worker(triton, gateway):
    assert gateway, "which had the model loaded"
    config = WorkersConfig(kind="triton", endpoints=(triton.endpoint,), call_timeout_s=20)
    worker = await TritonWorker.start(open_archive("default"), triton.endpoint, config, precision="fp32")
    yield worker
    await worker.close()


async def test_crops_of_another_shape_fail_their_call_and_not_the_worker(worker):
    with pytest.raises(WorkerFailedError, match="INVALID_ARGUMENT to a batch of 2 faces"):
        await worker.infer(np.zeros((2, 8, 8, 1), np.uint8), timeout_s=20)
    await worker.probe()


async def test_a_call_ends_in_its_time(worker):
    with pytest.raises(TimeoutError):
        await worker.infer(np.zeros((128, 48, 48, 1), np.uint8), timeout_s=0.01)
    await worker.probe()


async def test_what_waits_too_long_in_tritons_queue_is_dropped_there(worker, triton):
    name = worker._name
    async with InferenceServerClient(triton.endpoint) as client:

        async def ask(faces: int, timeout_us: int) -> None:
            tensor = InferInput("crops", [faces, 48, 48, 1], "UINT8")
            tensor.set_data_from_numpy(np.zeros((faces, 48, 48, 1), np.uint8))
            await client.infer(name, [tensor], timeout=timeout_us)

        long_one = asyncio.create_task(ask(200, 3_600_000_000))
        await asyncio.wait({long_one}, timeout=0.1)  # it is there by then, and far from done
        with pytest.raises(InferenceServerException) as caught:
            await ask(1, 1)
        await long_one
    assert isinstance(_infer_error(caught.value, 1), TimeoutError), caught.value


async def test_after_closing_every_call_fails(worker):
    await worker.close()
    with pytest.raises(WorkerFailedError):
        await worker.probe()
