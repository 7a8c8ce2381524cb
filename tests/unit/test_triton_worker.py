"""The worker against a server that speaks Triton's gRPC and fails as Triton was seen to fail."""

from collections.abc import AsyncIterator

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from ferserve.faces.archive import Archive
from ferserve.faces.index import open_archive
from ferserve.serving.errors import WorkerFailedError
from ferserve.serving.triton_model.repository import model_name
from ferserve.serving.workers import triton
from ferserve.serving.workers.config import WorkersConfig
from ferserve.serving.workers.protocol import WorkerDeadError
from ferserve.serving.workers.triton import TritonWorker

ROW = (0.1, 0.1, 0.1, 0.4, 0.1, 0.1, 0.1)


class FakeTriton(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Holds one model of the archive, and does to it what a test says."""

    def __init__(self, archive: Archive) -> None:
        self.name = model_name(archive, "fp32")
        self.archive_sha256 = archive.sha256
        self.state = "READY"
        self.ready = True
        self.dead = False
        self.loading_mends = True
        self.fault: tuple[grpc.StatusCode, str] | None = None
        self.row: tuple[float, ...] | None = ROW
        self.asked: list[str] = []
        self.timeouts_us: list[int] = []
        self.traceparents: list[str | None] = []

    async def ModelReady(self, request, context):  # noqa: ARG002, N802
        return pb.ModelReadyResponse(ready=self.ready and request.name == self.name)

    async def RepositoryIndex(self, request, context):  # noqa: ARG002, N802
        return pb.RepositoryIndexResponse(
            models=[pb.RepositoryIndexResponse.ModelIndex(name=self.name, state=self.state)]
        )

    async def RepositoryModelLoad(self, request, context):  # noqa: N802
        self.asked.append(f"load {request.model_name}")
        if request.model_name != self.name:
            await context.abort(grpc.StatusCode.INTERNAL, f"failed to load '{request.model_name}'")
        self.ready, self.dead = True, self.dead and not self.loading_mends
        return pb.RepositoryModelLoadResponse()

    async def RepositoryModelUnload(self, request, context):  # noqa: ARG002, N802
        self.asked.append(f"unload {request.model_name}")
        return pb.RepositoryModelUnloadResponse()

    async def ModelConfig(self, request, context):  # noqa: ARG002, N802
        answer = pb.ModelConfigResponse()
        answer.config.name = self.name
        answer.config.parameters["archive_sha256"].string_value = self.archive_sha256
        answer.config.input.add(name="crops")
        answer.config.output.add(name="scores")
        return answer

    async def ModelInfer(self, request, context):  # noqa: N802
        self.traceparents.append(dict(context.invocation_metadata()).get("traceparent"))
        if "timeout" in request.parameters:
            self.timeouts_us.append(request.parameters["timeout"].int64_param)
        if self.dead:
            await context.abort(grpc.StatusCode.INTERNAL, f"Stub process '{self.name}_0_0' is not healthy.")
        if self.fault is not None:
            await context.abort(*self.fault)
        answer = pb.ModelInferResponse(model_name=self.name)
        if self.row is not None:
            rows = np.tile(np.float32(self.row), (request.inputs[0].shape[0], 1))
            answer.outputs.add(name="scores", datatype="FP32", shape=rows.shape)
            answer.raw_output_contents.append(rows.tobytes())
        return answer


class Place:
    """A running fake and how to reach it."""

    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        self.fake = FakeTriton(archive)
        self.server = grpc.aio.server()
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(self.fake, self.server)
        self.endpoint = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"
        self.config = WorkersConfig(kind="triton", endpoints=(self.endpoint,), call_timeout_s=20, recovery_timeout_s=20)

    async def start(self) -> TritonWorker:
        return await TritonWorker.start(self.archive, self.endpoint, self.config, precision="fp32")


@pytest.fixture
async def place(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Place]:
    monkeypatch.setattr(triton, "SECOND_LOOK_S", 0.0)
    place = Place(open_archive("default"))
    await place.server.start()
    yield place
    await place.server.stop(None)


@pytest.fixture
async def worker(place: Place) -> AsyncIterator[TritonWorker]:
    worker = await place.start()
    yield worker
    await worker.close()


def crops(faces: int) -> np.ndarray:
    return np.zeros((faces, 48, 48, 1), np.uint8)


async def test_a_loaded_model_is_used_as_it_is(place: Place, worker: TritonWorker):
    scores = await worker.infer(crops(3), timeout_s=20)
    np.testing.assert_allclose(scores, [ROW] * 3)
    assert place.fake.asked == []
    info = worker.describe()
    assert (info.kind, info.model, info.precision, info.crop_shape) == ("triton", "mobilenet", "fp32", (48, 48, 1))


async def test_the_deadline_travels_along(place: Place, worker: TritonWorker):
    await worker.infer(crops(1), timeout_s=1.5)
    assert place.fake.timeouts_us[-1] == 1_500_000


async def test_a_model_that_is_not_loaded_is_loaded(place: Place):
    place.fake.ready = False
    await (await place.start()).close()
    assert place.fake.asked == [f"load {place.fake.name}"]


async def test_a_model_that_is_being_loaded_is_left_alone(place: Place):
    place.fake.ready, place.fake.state = False, "LOADING"
    with pytest.raises(WorkerFailedError, match="is loading"):
        await place.start()
    assert place.fake.asked == []


async def test_a_model_that_is_not_there_is_named_with_what_to_do(place: Place):
    wanted, place.fake.name = place.fake.name, "other"
    with pytest.raises(WorkerFailedError, match=f"expected a model {wanted} in its repository, found other: write it"):
        await place.start()


async def test_a_model_of_another_archive_is_refused(place: Place):
    place.fake.archive_sha256 = "0" * 64
    with pytest.raises(WorkerFailedError, match=f"to be of archive {place.archive.sha256}, got '000"):
        await place.start()


async def test_a_model_that_is_ready_and_dead_is_unloaded_and_loaded(place: Place):
    place.fake.dead = True
    await (await place.start()).close()
    assert place.fake.asked == [f"unload {place.fake.name}", f"load {place.fake.name}"]


async def test_a_model_that_stays_dead_is_no_worker(place: Place):
    place.fake.dead, place.fake.loading_mends = True, False
    with pytest.raises(WorkerDeadError):
        await place.start()
    assert len(place.fake.asked) == 2


async def test_a_death_is_told_apart_from_a_failure(place: Place, worker: TritonWorker):
    place.fake.fault = (grpc.StatusCode.INTERNAL, "ONNX Runtime failed in /models/secret")
    with pytest.raises(WorkerFailedError, match="Triton answered INTERNAL to a batch of 2 faces") as caught:
        await worker.infer(crops(2), timeout_s=20)
    assert not isinstance(caught.value, WorkerDeadError)
    assert "secret" not in str(caught.value)
    place.fake.dead = True
    with pytest.raises(WorkerDeadError):
        await worker.infer(crops(2), timeout_s=20)


@pytest.mark.parametrize(
    "fault",
    [
        (grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"),
        (grpc.StatusCode.UNAVAILABLE, "Request timeout expired"),
    ],
)
async def test_what_expired_in_tritons_queue_is_a_matter_of_time(place: Place, worker: TritonWorker, fault):
    place.fake.fault = fault
    with pytest.raises(TimeoutError):
        await worker.infer(crops(1), timeout_s=20)


async def test_an_answer_without_scores_is_a_failure(place: Place, worker: TritonWorker):
    place.fake.row = None
    with pytest.raises(WorkerFailedError, match="got an answer without them"):
        await worker.infer(crops(1), timeout_s=20)


@pytest.mark.parametrize("row", [(float("nan"), *ROW[1:]), ROW[:6]])
async def test_a_model_that_gives_no_scores_does_not_start_and_is_not_reloaded(place: Place, row: tuple[float, ...]):
    place.fake.row = row
    with pytest.raises(WorkerFailedError, match="expected"):
        await place.start()
    assert place.fake.asked == []


async def test_nobody_there_is_said_in_words(place: Place):
    await place.server.stop(None)
    with pytest.raises(WorkerFailedError, match="Triton answered UNAVAILABLE"):
        await place.start()


async def test_after_closing_every_call_fails_in_our_own_words(worker: TritonWorker):
    await worker.close()
    with pytest.raises(WorkerFailedError, match="closed"):
        await worker.probe()
