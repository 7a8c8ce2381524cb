"""Three times what the gateway can do: minutes of load in virtual time, and one full house over a real connection.

The engine is real but for its detector and worker, which take their time on the loop's clock; the clock jumps to
whatever happens next. So every figure is exact, and a minute of load takes a second.
"""

import asyncio
import selectors
from collections import Counter
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor, Future
from dataclasses import dataclass

import cv2
import grpc
import numpy as np
import pytest

from ferserve.faces.decode import DecodeLimits
from ferserve.faces.detectors import Detector
from ferserve.faces.errors import FerserveError
from ferserve.faces.preprocess import PreprocessSpec
from ferserve.faces.types import Box, Detection, Image
from ferserve.serving.admission import Admission, AdmissionConfig
from ferserve.serving.analyzer import Analyzer
from ferserve.serving.analyzer_config import AnalyzerConfig
from ferserve.serving.batcher import Batcher
from ferserve.serving.benchmarks.arrivals import poisson_arrivals_s
from ferserve.serving.client.failures import error_of_rpc
from ferserve.serving.convert import priority_metadata
from ferserve.serving.errors import DeadlineError, OverloadedError
from ferserve.serving.grpc_api import SERVICE_NAME
from ferserve.serving.metrics import Metrics
from ferserve.serving.models import LoadedModel
from ferserve.serving.policy import BatchPolicyConfig
from ferserve.serving.preparers.threads import thread_site
from ferserve.serving.requests import AnalyzeOptions, ModelInfo, Priority, RequestContext
from ferserve.serving.workers.protocol import CropBatch, ScoreBatch, WorkerInfo
from ferserve.v1.expression_service_pb2 import AnalyzeRequest, ListModelsRequest
from ferserve.v1.expression_service_pb2_grpc import ExpressionServiceStub

SPEC = PreprocessSpec(size_px=16, channels=1)
INFO = ModelInfo(
    name="m", version="1", archive_sha256="a" * 64, preprocess_sha256=SPEC.sha256, precision="fp32",
    architecture="none", paper="none",
    crop_size_px=16, crop_channels=1, temperature=1.0, uncertain_below=0.5, figures={}, is_default=True,
)  # fmt: skip
PHOTO = bytes(cv2.imencode(".png", np.full((64, 64, 3), 90, np.uint8))[1])
SLOTS, PHOTO_S, FACE_S = 2, 0.1, 0.002
CAPACITY_PER_S = SLOTS / PHOTO_S


class JumpingSelector(selectors.DefaultSelector):
    """Waits for nothing: time passes at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 1000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "everything waits for ever"
            self.now_s += timeout
        return ready


class JumpingLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jumping = JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now_s


def in_virtual_time(story: Coroutine[None, None, None]) -> None:
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        runner.run(story)


class TimedExecutor(Executor):
    """As many threads as slots, each busy for as long as a photo takes, even once nobody waits for it."""

    def __init__(self) -> None:
        self.photo_s: Callable[[], float] = lambda: PHOTO_S
        self._free_at_s = [0.0] * SLOTS

    def submit(self, work: Callable[..., object], /, *args: object, **kwargs: object) -> Future[object]:
        loop, done = asyncio.get_running_loop(), Future()
        done.set_running_or_notify_cancel()  # a thread cannot be stopped

        def finish() -> None:
            try:
                done.set_result(work(*args, **kwargs))
            except FerserveError as error:
                done.set_exception(error)

        thread = int(np.argmin(self._free_at_s))
        self._free_at_s[thread] = max(self._free_at_s[thread], loop.time()) + self.photo_s()
        loop.call_at(self._free_at_s[thread], finish)
        return done


class OneFaceDetector(Detector):
    name = "one face"

    def default_size_px(self, height_px: int, width_px: int) -> int:  # noqa: ARG002 - as every detector
        return 64

    def detect(self, image: Image, *, size_px: int | None = None) -> list[Detection]:  # noqa: ARG002 - as every detector
        return [Detection(box=Box(x0=8, y0=8, x1=40, y1=40), score=0.9)]


class TimedWorker:
    concurrency = SLOTS

    def __init__(self) -> None:
        self.computed = 0

    async def infer(self, batch: CropBatch, *, timeout_s: float) -> ScoreBatch:  # noqa: ARG002 - as every worker
        self.computed += len(batch)
        await asyncio.sleep(FACE_S * len(batch))
        return np.full((len(batch), 7), 1 / 7, dtype=np.float32)

    async def probe(self) -> None: ...

    def describe(self) -> WorkerInfo:
        return WorkerInfo(kind="fake", model="m", version="1", crop_shape=(16, 16, 1), precision="fp32", detail="")

    async def close(self) -> None: ...


@dataclass
class Answered:
    """One request's end, in virtual seconds."""

    name: str
    sent_s: float
    took_s: float
    error: FerserveError | None = None


class House:
    """The engine in virtual time, and the callers' diary."""

    def __init__(self, **admission: float) -> None:
        clock, config = asyncio.get_running_loop().time, AnalyzerConfig(threads=SLOTS)
        self.metrics = Metrics()
        self.worker, self.executor = TimedWorker(), TimedExecutor()
        batcher = Batcher(self.worker, BatchPolicyConfig(), observer=self.metrics.batches("m"), clock=clock)
        self.admission = Admission(AdmissionConfig(**admission), bulk_share=0.05, observer=self, clock=clock)
        self.analyzer = Analyzer(
            {"m": LoadedModel(info=INFO, spec=SPEC, worker=self.worker, batcher=batcher)},
            "m",
            site=thread_site(self.executor, OneFaceDetector(), config, limits=DecodeLimits(), clock=clock),
            config=config,
            admission=self.admission,
            bulk_share=0.05,
            observer=self.metrics,
            clock=clock,
        )
        self.most_in_flight = 0
        self.diary: list[Answered] = []

    def refused(self, bound: object, priority: Priority) -> None: ...

    def in_flight(self, images: int) -> None:
        self.most_in_flight = max(self.most_in_flight, images)

    async def call(self, number: int, timeout_s: float, priority: Priority = Priority.INTERACTIVE) -> None:
        sent_s = asyncio.get_running_loop().time()
        context = RequestContext(request_id=str(number), deadline_s=sent_s + timeout_s)
        error = None
        try:
            await self.analyzer.analyze(PHOTO, AnalyzeOptions(priority=priority), context)
        except FerserveError as raised:
            error = raised
        took_s = asyncio.get_running_loop().time() - sent_s
        self.diary.append(Answered(priority.name, sent_s, took_s, error))

    async def offer(self, rate_per_s: float, duration_s: float, *, timeout_s: float, seed: int = 1) -> None:
        began_s = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as calls:
            for number, due_s in enumerate(poisson_arrivals_s(rate_per_s, duration_s, seed=seed)):
                await asyncio.sleep(began_s + due_s - asyncio.get_running_loop().time())
                calls.create_task(self.call(number, timeout_s))

    def ended(self) -> Counter[type | None]:
        return Counter(answered.error and type(answered.error) for answered in self.diary)

    def dropped(self, stage: str) -> float:
        labels = {"stage": stage, "cause": "expired"}
        return self.metrics.registry.get_sample_value("ferserve_dropped_before_compute_total", labels)


@pytest.mark.parametrize("timeout_s", [0.5, 2.0, 10.0])
def test_at_three_times_capacity_all_that_can_be_done_is_done_and_the_rest_refused_at_once(timeout_s: float):
    async def story() -> None:
        house, duration_s = House(), 60.0
        await house.offer(3 * CAPACITY_PER_S, duration_s, timeout_s=timeout_s)
        assert set(house.ended()) == {None, OverloadedError}, "nobody was let in to miss a deadline"
        assert house.ended()[None] >= 0.95 * CAPACITY_PER_S * duration_s
        for answered in house.diary:
            if answered.error is None:
                assert answered.took_s <= timeout_s
            else:
                assert answered.took_s == 0.0
                assert answered.error.retry_after_s > 0
        assert house.worker.computed == house.ended()[None], "a face was computed for nobody"
        assert house.dropped("prepare") == house.dropped("infer") == 0

    in_virtual_time(story())


def test_photos_of_all_kinds_are_foreseen_well_enough():
    """Times spread over a decade: some forecasts are wrong, and still next to nothing is computed in vain."""

    async def story() -> None:
        house, duration_s, rng = House(), 120.0, np.random.default_rng(7)
        house.executor.photo_s = lambda: float(rng.lognormal(np.log(PHOTO_S), 0.6))
        mean_s = PHOTO_S * np.exp(0.6**2 / 2)
        await house.offer(3 * SLOTS / mean_s, duration_s, timeout_s=2.0)
        ended = house.ended()
        assert ended[None] >= 0.95 * duration_s * SLOTS / mean_s
        assert ended[DeadlineError] <= 0.02 * ended[None]

    in_virtual_time(story())


def test_a_machine_that_slows_down_takes_less_on():
    async def story() -> None:
        house, timeout_s = House(), 2.0
        loop = asyncio.get_running_loop()
        slows_s = loop.time() + 30.0
        house.executor.photo_s = lambda: PHOTO_S if loop.time() < slows_s else 4 * PHOTO_S
        await house.offer(2 * CAPACITY_PER_S, 90.0, timeout_s=timeout_s)
        late = [answered.sent_s - slows_s for answered in house.diary if isinstance(answered.error, DeadlineError)]
        assert late, "what was let in before could not be foreseen"
        assert max(late) < 5 * timeout_s, "and later it was"
        answered_slowly = sum(answered.error is None and answered.sent_s > slows_s + 10 for answered in house.diary)
        assert answered_slowly >= 0.9 * 50 * CAPACITY_PER_S / 4

    in_virtual_time(story())


def test_what_expires_in_the_queue_is_never_computed():
    async def story() -> None:
        house = House()
        async with asyncio.TaskGroup() as calls:
            for number in range(40):  # at once, so that nothing is known of how long a photo takes
                calls.create_task(house.call(number, timeout_s=0.95))
        assert house.ended()[None] == 18, "nine photos on each of two threads"
        assert house.ended()[DeadlineError] == 22
        assert house.dropped("prepare") == 20, "the other two had been begun"
        assert house.worker.computed == 18

    in_virtual_time(story())


def test_what_is_in_flight_stays_bounded():
    async def story() -> None:
        house = House(max_images=10)
        await house.offer(50 * CAPACITY_PER_S, 10.0, timeout_s=60.0)
        assert house.most_in_flight == 10
        assert set(house.ended()) == {None, OverloadedError}
        assert house.admission.images_in_flight == house.admission.faces_in_flight == 0

    in_virtual_time(story())


def test_bulk_is_pushed_back_and_not_out():
    async def story() -> None:
        house, duration_s = House(), 60.0

        async def folder() -> None:
            for number, due_s in enumerate(np.arange(0, duration_s, 0.2)):
                await asyncio.sleep(began_s + due_s - asyncio.get_running_loop().time())
                calls.create_task(house.call(10_000 + number, 20.0, Priority.BULK))

        began_s = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as calls:
            calls.create_task(folder())
            await house.offer(3 * CAPACITY_PER_S, duration_s, timeout_s=2.0)
        bulk = sum(answered.name == "BULK" and answered.error is None for answered in house.diary)
        interactive = house.ended()[None] - bulk
        assert bulk >= 0.04 * CAPACITY_PER_S * duration_s
        assert interactive >= 0.8 * CAPACITY_PER_S * duration_s

    in_virtual_time(story())


async def test_over_grpc_a_full_house_refuses_at_once_with_retry_info(start_held, photo):
    held = await start_held(max_images=4)
    async with grpc.aio.insecure_channel(held.grpc) as channel:
        stub = ExpressionServiceStub(channel)
        inside = [asyncio.ensure_future(stub.Analyze(AnalyzeRequest(image=photo))) for _ in range(4)]
        await held.accepted(4)
        refused = await asyncio.gather(
            *(stub.Analyze(AnalyzeRequest(image=photo)) for _ in range(8)), return_exceptions=True
        )
        assert not any(call.done() for call in inside), "nobody was served in the meantime"
        assert [failure.code() for failure in refused] == [grpc.StatusCode.RESOURCE_EXHAUSTED] * 8
        errors = [error_of_rpc(failure, held.grpc) for failure in refused]
        assert all(isinstance(error, OverloadedError) and error.retry_after_s > 0 for error in errors)
        assert held.admission.images_in_flight == 4
        held.detector.let_go.set()
        assert [len(answer.analysis.faces) for answer in await asyncio.gather(*inside)] == [1] * 4
    labels = {"reason": "images", "priority": "interactive"}
    assert held.metrics.registry.get_sample_value("ferserve_refused_total", labels) == 8


@pytest.mark.parametrize("method", ["Analyze", "ClassifyFaces"])
async def test_over_grpc_a_full_house_refuses_a_call_that_says_its_priority_before_its_message_comes(
    start_held, photo, method
):
    held = await start_held(max_images=2)
    async with grpc.aio.insecure_channel(held.grpc) as channel:
        stub = ExpressionServiceStub(channel)
        inside = [asyncio.ensure_future(stub.Analyze(AnalyzeRequest(image=photo))) for _ in range(2)]
        await held.accepted(2)
        silent = channel.stream_unary(f"/{SERVICE_NAME}/{method}")(metadata=priority_metadata(Priority.INTERACTIVE))
        assert await silent.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        bulk = channel.stream_unary(f"/{SERVICE_NAME}/{method}")(metadata=priority_metadata(Priority.BULK))
        await bulk.wait_for_connection()
        waits = asyncio.ensure_future(bulk.code())
        await stub.ListModels(ListModelsRequest())
        assert not waits.done(), "bulk has nothing in flight, so its message is waited for"
        bulk.cancel()
        held.detector.let_go.set()
        await asyncio.gather(*inside)
        await waits


async def answered(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Head and body of one HTTP answer."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    return head, await reader.readexactly(int(length.partition(b":")[2]))


async def test_over_rest_a_full_house_refuses_by_the_head_alone_and_keeps_the_connection(start_held, photo):
    held = await start_held(max_images=1)
    async with grpc.aio.insecure_channel(held.grpc) as channel:
        inside = asyncio.ensure_future(ExpressionServiceStub(channel).Analyze(AnalyzeRequest(image=photo)))
        await held.accepted(1)
        reader, writer = await asyncio.open_connection(*held.rest.removeprefix("http://").split(":"))
        lines = f"Host: a\r\nContent-Type: image/png\r\nContent-Length: {len(photo)}\r\n\r\n".encode()
        for _ in range(2):
            writer.write(b"POST /v1/images:analyze HTTP/1.1\r\n" + lines)
            head, body = await answered(reader)
            assert head.startswith(b"HTTP/1.1 429 ")
            assert b"connection: close" not in head.lower()
            assert b'"reason":"OVERLOADED"' in body
            assert b"retry-after: " in head.lower()
            writer.write(photo)  # comes late, and is nobody's
        writer.write(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await answered(reader))[0].startswith(b"HTTP/1.1 200 ")
        writer.close()
        held.detector.let_go.set()
        await inside
    labels = {"method": "/v1/images:analyze", "code": "OVERLOADED"}
    assert held.metrics.registry.get_sample_value("ferserve_requests_total", labels) == 2
