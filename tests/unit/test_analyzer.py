import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from ferserve.faces.decode import DecodeLimits
from ferserve.faces.detectors import Detector
from ferserve.faces.errors import FerserveError, ImageTooLargeError, InvalidImageError, InvalidRequestError, Reason
from ferserve.faces.labels import Expression
from ferserve.faces.preprocess import PreprocessSpec
from ferserve.faces.types import Box, Detection, Image
from ferserve.serving.admission import Admission, AdmissionConfig
from ferserve.serving.analyzer import MAX_DEADLINE_S, Analyzer
from ferserve.serving.analyzer_config import AnalyzerConfig
from ferserve.serving.batcher import Batcher
from ferserve.serving.errors import (
    DeadlineError,
    ModelNotFoundError,
    NotReadyError,
    OverloadedError,
    WorkerFailedError,
)
from ferserve.serving.metrics import Metrics
from ferserve.serving.models import LoadedModel
from ferserve.serving.policy import BatchPolicyConfig
from ferserve.serving.preparers.threads import thread_site
from ferserve.serving.requests import (
    AnalyzeOptions,
    FaceClassification,
    FacesClassification,
    ImageAnalysis,
    ModelInfo,
    OcclusionQuestion,
    Priority,
    RequestContext,
)
from ferserve.serving.workers.protocol import CropBatch, ScoreBatch, WorkerInfo

SPEC = PreprocessSpec(size_px=16, channels=1)
HAPPY, SAD = int(Expression.HAPPY), int(Expression.SAD)
CALL = RequestContext(request_id="call")


def picture(width_px: int = 320, height_px: int = 240, *, kind: str = ".png", grey: int = 200) -> bytes:
    """A dark picture with a bright right half: a face in it scores happy, one to the left of it scores sad."""
    pixels = np.full((height_px, width_px, 3), 20, dtype=np.uint8)
    pixels[:, width_px // 2 :] = grey
    return bytes(cv2.imencode(kind, pixels)[1])


def face(x: float, *, score: float = 0.9) -> Callable[[Image], Detection]:
    """A face whose box begins at the fraction `x` of the picture's width, a tenth of it wide."""

    def find(image: Image) -> Detection:
        width_px, y0 = image.shape[1], image.shape[0] / 4
        box = Box(x0=x * width_px, y0=y0, x1=(x + 0.1) * width_px, y1=y0 + 0.1 * width_px)
        return Detection(box=box, score=score)

    return find


class ScriptedDetector(Detector):
    """Finds the faces it is told to, and can hold its callers' threads."""

    name = "scripted"

    def default_size_px(self, height_px: int, width_px: int) -> int:  # noqa: ARG002 - as every detector
        return 320

    def __init__(self) -> None:
        self.faces: list[Callable[[Image], Detection]] = [face(0.6), face(0.1, score=0.8)]
        self.seen: list[tuple[tuple[int, ...], int | None]] = []
        self.error: Exception | None = None
        self.entered = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()

    def detect(self, image: Image, *, size_px: int | None = None) -> list[Detection]:
        self.seen.append((image.shape[:2], size_px))
        self.entered.set()
        assert self.go_on.wait(30)
        if self.error is not None and image.shape[1] == 100:
            raise self.error
        return [find(image) for find in self.faces]


class BrightnessWorker:
    """Scores bright crops happy and dark ones sad; can fail or hold its callers."""

    concurrency = 2

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.held: asyncio.Future[None] | None = None
        self.batches: list[int] = []
        self.begun = asyncio.Semaphore(0)
        self.probes = 0
        self.closed = False

    async def infer(self, batch: CropBatch, *, timeout_s: float) -> ScoreBatch:  # noqa: ARG002 - as every worker
        self.batches.append(len(batch))
        self.begun.release()
        await asyncio.sleep(0)  # as every real worker suspends
        if self.held is not None:
            await asyncio.shield(self.held)
        if self.error is not None:
            raise self.error
        scores = np.full((len(batch), 7), 0.05, dtype=np.float32)
        for row, crop in zip(scores, batch, strict=True):
            row[HAPPY if crop.mean() > 128 else SAD] = 0.7 if crop.mean() > 128 else 0.3
        return scores

    async def probe(self) -> None:
        self.probes += 1

    def describe(self) -> WorkerInfo:
        return WorkerInfo(kind="fake", model="m", version="1", crop_shape=(16, 16, 1), precision="fp32", detail="")

    async def close(self) -> None:
        self.closed = True


class House:
    """An analyzer with everything around it real but the detector and the workers."""

    def __init__(self, *, threads: int = 2, policy: BatchPolicyConfig | None = None, **settings: float) -> None:
        clock = asyncio.get_running_loop().time
        self.metrics = Metrics()
        self.detector = ScriptedDetector()
        self.worker, self.other = BrightnessWorker(), BrightnessWorker()
        admission = {name: settings.pop(name) for name in list(settings) if name.startswith("max_i")}
        self.admission = Admission(AdmissionConfig(**admission), bulk_share=0.05, observer=self.metrics, clock=clock)
        self.executor = ThreadPoolExecutor(threads)
        policy, config = policy or BatchPolicyConfig(), AnalyzerConfig(threads=threads, **settings)
        self.models = {
            name: LoadedModel(
                info=info(name),
                spec=SPEC,
                worker=worker,
                batcher=Batcher(worker, policy, observer=self.metrics.batches(name), clock=clock),
            )
            for name, worker in (("other", self.other), ("main", self.worker))
        }
        self.analyzer = Analyzer(
            self.models,
            "main",
            site=thread_site(self.executor, self.detector, config, limits=DecodeLimits(), clock=clock),
            config=config,
            admission=self.admission,
            bulk_share=0.05,
            observer=self.metrics,
            clock=clock,
        )

    async def analyze(self, data: bytes | None = None, **options: object) -> ImageAnalysis:
        return await self.analyzer.analyze(data or picture(), AnalyzeOptions(**options), CALL)

    async def classify(self, *faces: bytes) -> FacesClassification:
        return await self.analyzer.classify(faces, AnalyzeOptions(), CALL)

    async def detecting(self) -> None:
        """Wait until a thread is in the detector."""
        assert await asyncio.to_thread(self.detector.entered.wait, 30)

    def metric(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)

    def nothing_in_flight(self) -> bool:
        return (self.admission.images_in_flight, self.admission.faces_in_flight, self.analyzer.in_flight) == (0, 0, 0)

    async def close(self) -> None:
        self.detector.go_on.set()
        await self.analyzer.close()
        self.executor.shutdown()


def info(name: str) -> ModelInfo:
    return ModelInfo(
        name=name,
        version="1",
        archive_sha256="a" * 64,
        preprocess_sha256=SPEC.sha256,
        precision="fp32",
        architecture="none",
        paper="none",
        crop_size_px=16,
        crop_channels=1,
        temperature=1.0,
        uncertain_below=0.5,
        figures={},
        is_default=name == "main",
    )


@pytest.fixture
async def make() -> AsyncIterator[Callable[..., House]]:
    houses: list[House] = []

    def build(**settings: object) -> House:
        houses.append(House(**settings))
        return houses[-1]

    yield build
    for house in houses:
        await house.close()


@pytest.fixture
async def house(make: Callable[..., House]) -> House:
    return make()


async def test_a_photo_is_answered_with_its_faces(house: House):
    answer = await house.analyze()
    assert (answer.width_px, answer.height_px, answer.detector) == (320, 240, "scripted")
    assert answer.model is house.models["main"].info
    bright, dark = answer.faces
    assert (bright.expression, bright.uncertain) == (Expression.HAPPY, False)
    assert (dark.expression, dark.uncertain) == (Expression.SAD, True)
    assert bright.detection.box == Box(x0=192.0, y0=60.0, x1=224.0, y1=92.0)
    assert bright.quality.size_px == pytest.approx(32.0)
    assert (bright.detection.score, dark.detection.score) == (0.9, 0.8)
    assert house.nothing_in_flight()


async def test_every_stage_is_timed_and_the_stages_fit_into_the_total(house: House):
    timings = (await house.analyze()).timings
    parts = [timings.decode_ms, timings.detect_ms, timings.preprocess_ms, timings.queue_ms, timings.infer_ms]
    assert all(part > 0 for part in parts)
    assert sum(parts) <= timings.total_ms
    for stage in ("turn", "decode", "detect", "preprocess", "queue", "infer"):
        assert house.metric("ferserve_stage_duration_seconds_count", stage=stage) is not None


async def test_a_large_jpeg_is_decoded_smaller_and_its_boxes_are_in_original_pixels(house: House):
    answer = await house.analyze(picture(1600, 1200, kind=".jpg"), detection_size_px=160)
    ((height_px, width_px), size_px) = house.detector.seen[0]
    assert 320 <= width_px <= 800, "at least twice the detection size, and less than all"
    assert (size_px, width_px * 3) == (160, height_px * 4)
    assert (answer.width_px, answer.height_px) == (1600, 1200)
    box = answer.faces[0].detection.box
    assert (box.x0, box.x1) == (pytest.approx(960.0), pytest.approx(1120.0))
    assert answer.faces[0].quality.size_px == pytest.approx(160.0)


async def test_without_a_size_the_detectors_own_is_taken(house: House):
    await house.analyze()
    assert house.detector.seen == [((240, 320), 320)]


async def test_exact_means_every_pixel(house: House):
    await house.analyze(picture(1600, 1200, kind=".jpg"), exact=True, detection_size_px=160)
    assert house.detector.seen == [((1200, 1600), 1600)]


async def test_max_faces_keeps_the_best(house: House):
    house.detector.faces = [face(0.6, score=0.9), face(0.7, score=0.8), face(0.1, score=0.7)]
    answer = await house.analyze(max_faces=2)
    assert [found.detection.score for found in answer.faces] == [0.9, 0.8]
    assert house.worker.batches == [2]


async def test_no_face_is_an_empty_answer(house: House):
    house.detector.faces = []
    assert (await house.analyze()).faces == ()
    assert house.worker.batches == []
    assert house.metric("ferserve_images_without_face_total") == 1


async def test_a_detection_without_a_crop_is_left_out_and_counted(house: House):
    house.detector.faces.insert(1, face(3.0))
    answer = await house.analyze()
    assert [found.detection.score for found in answer.faces] == [0.9, 0.8]
    assert house.metric("ferserve_skipped_faces_total") == 1
    assert house.metric("ferserve_faces_total", model="main") == 2
    assert house.metric("ferserve_uncertain_faces_total", model="main") == 1


async def test_bytes_that_are_no_picture_are_the_callers_error(house: House):
    with pytest.raises(InvalidImageError):
        await house.analyze(picture()[:100])
    assert house.detector.seen == []
    assert house.nothing_in_flight()


async def test_a_model_is_found_by_name(house: House):
    answer = await house.analyze(model="other")
    assert answer.model.name == "other"
    assert (house.worker.batches, house.other.batches) == ([], [2])
    assert house.analyzer.model("").name == "main"
    assert house.analyzer.model("other").name == "other"
    assert [model.name for model in house.analyzer.models()] == ["main", "other"]


async def test_an_unknown_model_is_named_with_those_there_are(house: House):
    with pytest.raises(ModelNotFoundError, match="expected one of main, other, got 'nobody'"):
        await house.analyze(model="nobody")
    with pytest.raises(ModelNotFoundError):
        house.analyzer.model("nobody")


async def test_an_admitted_crowd_is_never_refused_for_queue_room(make: Callable[..., House]):
    house = make(policy=BatchPolicyConfig(max_queued_faces=1), max_inflight_faces=3)
    house.detector.faces = [face(0.6)] * 40
    assert len((await house.analyze()).faces) == 40


async def test_faces_found_replace_those_expected(house: House):
    house.worker.held = asyncio.get_running_loop().create_future()
    house.detector.faces = [face(0.6)] * 5
    call = asyncio.create_task(house.analyze())
    await house.worker.begun.acquire()
    assert (house.admission.images_in_flight, house.admission.faces_in_flight) == (1, 5)
    house.worker.held.set_result(None)
    await call
    assert house.nothing_in_flight()


async def test_a_full_house_refuses_before_anything_costs(make: Callable[..., House]):
    house = make(max_images=1)
    house.detector.go_on.clear()
    first = asyncio.create_task(house.analyze())
    await house.detecting()
    with pytest.raises(OverloadedError) as caught:
        await house.analyze(b"never looked at")
    assert caught.value.retry_after_s > 0
    assert house.metric("ferserve_refused_total", reason="images", priority="interactive") == 1
    house.detector.go_on.set()
    assert len((await first).faces) == 2


async def test_bulk_photos_do_not_hold_up_a_selfie_before_detection(make: Callable[..., House]):
    house = make(threads=1, turn_ms=60_000)  # or a slow machine would end turns
    house.detector.go_on.clear()
    calls = [asyncio.create_task(house.analyze(picture(300, 200)))]
    await house.detecting()
    calls += [
        asyncio.create_task(house.analyze(picture(width_px, 200), priority=Priority.BULK))
        for width_px in (310, 320, 330)
    ]
    await asyncio.sleep(0)
    calls.append(asyncio.create_task(house.analyze(picture(400, 200))))
    await asyncio.sleep(0)
    assert house.metric("ferserve_waiting_images") == 4
    house.detector.go_on.set()
    await asyncio.gather(*calls)
    assert [shape[1] for shape, _ in house.detector.seen] == [300, 400, 310, 320, 330]


async def test_past_its_deadline_a_photo_is_not_decoded(house: House):
    context = RequestContext(request_id="late", deadline_s=asyncio.get_running_loop().time())
    with pytest.raises(DeadlineError):
        await house.analyzer.analyze(picture(), AnalyzeOptions(), context)
    assert house.detector.seen == []
    assert house.metric("ferserve_dropped_before_compute_total", stage="prepare", cause="expired") == 1
    assert house.nothing_in_flight()


async def test_a_request_without_a_deadline_gets_the_default_one(make: Callable[..., House]):
    house = make(default_deadline_ms=100)
    house.worker.held = asyncio.get_running_loop().create_future()
    with pytest.raises(DeadlineError):
        await house.analyze()
    assert house.nothing_in_flight()


async def test_nobody_holds_a_place_for_ever(house: House):
    house.worker.held = asyncio.get_running_loop().create_future()
    context = RequestContext(request_id="patient", deadline_s=float("inf"))
    call = asyncio.create_task(house.analyzer.analyze(picture(), AnalyzeOptions(), context))
    await house.worker.begun.acquire()
    deadlines_s = {entry.job.deadline_s for entry in house.models["main"].batcher._dispatcher._entries.values()}
    assert max(deadlines_s) <= asyncio.get_running_loop().time() + MAX_DEADLINE_S
    house.worker.held.set_result(None)
    assert len((await call).faces) == 2


async def test_a_caller_who_leaves_during_detection_frees_everything(house: House):
    house.detector.go_on.clear()
    call = asyncio.create_task(house.analyze())
    await house.detecting()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert house.nothing_in_flight()
    house.detector.go_on.set()
    assert len((await house.analyze()).faces) == 2
    assert house.worker.batches == [2]


async def test_a_caller_who_leaves_while_faces_wait_takes_them_along(house: House):
    house.worker.held = asyncio.get_running_loop().create_future()
    house.detector.faces = [face(0.6)] * 30
    call = asyncio.create_task(house.analyze())
    for _ in range(house.worker.concurrency):
        await house.worker.begun.acquire()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await asyncio.sleep(0)
    assert house.models["main"].batcher.queued_faces == 0
    assert house.nothing_in_flight()


async def test_a_failing_worker_fails_the_photo_and_its_other_faces_are_not_computed(house: House):
    house.worker.error = WorkerFailedError("broken")
    house.detector.faces = [face(0.6)] * 100
    with pytest.raises(WorkerFailedError, match="broken"):
        await house.analyze()
    await asyncio.sleep(0)
    assert house.models["main"].batcher.queued_faces == 0
    assert sum(house.worker.batches) < 100
    assert house.nothing_in_flight()


async def test_one_bad_picture_does_not_fail_its_neighbours(house: House):
    images = [picture(300, 200), b"\xff\xd8 broken", picture(310, 200)]
    first, bad, third = await house.analyzer.analyze_many(images, AnalyzeOptions(), CALL)
    assert isinstance(first, ImageAnalysis)
    assert isinstance(third, ImageAnalysis)
    assert (first.width_px, third.width_px) == (300, 310)
    assert isinstance(bad, InvalidImageError)
    assert house.nothing_in_flight()


@pytest.mark.parametrize("kind", [ZeroDivisionError, TimeoutError])
async def test_an_unforeseen_fault_in_one_picture_stays_with_it_and_keeps_its_words_inside(
    house: House, kind: type[Exception]
):
    house.detector.error = kind("inside")
    outcomes = await house.analyzer.analyze_many([picture(100, 100), picture()], AnalyzeOptions(), CALL)
    assert isinstance(outcomes[0], FerserveError)
    assert (outcomes[0].reason, outcomes[0].message) == (Reason.INTERNAL, "internal error")
    assert repr(outcomes[0].__cause__) == f"{kind.__name__}('inside')"
    assert isinstance(outcomes[1], ImageAnalysis)


async def test_many_pictures_of_one_call_take_few_places_at_once(make: Callable[..., House]):
    house = make(images_at_once=2, max_images=4)
    house.detector.go_on.clear()
    call = asyncio.create_task(house.analyzer.analyze_many([picture()] * 20, AnalyzeOptions(), CALL))
    await house.detecting()
    assert house.admission.images_in_flight == 2
    house.detector.go_on.set()
    outcomes = await call
    assert [type(outcome) for outcome in outcomes] == [ImageAnalysis] * 20


def large_png(side_px: int) -> bytes:
    return bytes(cv2.imencode(".png", np.zeros((side_px, side_px, 3), dtype=np.uint8))[1])


async def test_large_pictures_take_turns_while_small_ones_pass(make: Callable[..., House]):
    house = make(threads=2, decode_budget_bytes=40_000_000)
    house.detector.go_on.clear()
    first = asyncio.create_task(house.analyze(large_png(2500)))
    await house.detecting()
    second = asyncio.create_task(house.analyze(large_png(2500)))
    memory = house.analyzer._stages.preparation._memory
    while memory.waiting == 0:  # noqa: ASYNC110 - the thread that finds out tells nobody else
        await asyncio.sleep(0.001)
    assert 20_000_000 < memory.used_bytes < 40_000_000
    house.detector.go_on.set()
    assert len((await house.analyze()).faces) == 2
    assert [answer.width_px for answer in await asyncio.gather(first, second)] == [2500, 2500]
    await asyncio.to_thread(house.executor.shutdown)
    await asyncio.sleep(0)
    assert memory.used_bytes == 0


async def test_what_no_budget_allows_is_refused_and_its_neighbours_are_not(make: Callable[..., House]):
    house = make(max_decode_bytes=30_000_000)
    with pytest.raises(
        ImageTooLargeError, match="takes at most 30000000 bytes of memory to decode, got one that takes"
    ):
        await house.analyze(large_png(4000))
    assert house.detector.seen == []
    items = (await house.classify(picture(48, 48), large_png(4000), large_png(1900))).items
    assert [type(item) for item in items] == [FaceClassification, ImageTooLargeError, FaceClassification]
    assert house.nothing_in_flight()


async def test_no_pictures_are_no_outcomes(house: House):
    assert await house.analyzer.analyze_many([], AnalyzeOptions(), CALL) == []


async def test_an_unknown_model_fails_the_call_and_not_each_picture(house: House):
    with pytest.raises(ModelNotFoundError):
        await house.analyzer.analyze_many([picture()], AnalyzeOptions(model="nobody"), CALL)


async def test_crops_are_scored_without_detection_and_a_bad_one_is_an_error_in_its_place(house: House):
    bright, dark = picture(48, 48), picture(48, 48, grey=0)
    answer = await house.classify(bright[:40], dark, b"", bright)
    assert house.detector.seen == []
    assert [type(item) for item in answer.items] == [
        InvalidImageError,
        FaceClassification,
        InvalidImageError,
        FaceClassification,
    ]
    assert house.worker.batches == [2]
    assert answer.timings.decode_ms > 0
    assert answer.timings.total_ms >= answer.timings.infer_ms > 0
    assert house.metric("ferserve_faces_total", model="main") == 2
    assert house.metric("ferserve_image_faces_count") == 0
    assert house.nothing_in_flight()


async def test_a_crop_is_scored_by_its_pixels(house: House):
    bright = bytes(cv2.imencode(".png", np.full((48, 48, 3), 220, dtype=np.uint8))[1])
    dark = bytes(cv2.imencode(".png", np.full((48, 48, 3), 20, dtype=np.uint8))[1])
    items = (await house.classify(dark, bright)).items
    assert [(item.expression, item.uncertain) for item in items if isinstance(item, FaceClassification)] == [
        (Expression.SAD, True),
        (Expression.HAPPY, False),
    ]


async def test_a_failing_worker_is_an_error_in_every_crops_place(house: House):
    house.worker.error = WorkerFailedError("broken")
    items = (await house.classify(picture(), picture())).items
    assert [type(item) for item in items] == [WorkerFailedError, WorkerFailedError]


async def test_too_many_crops_are_refused(make: Callable[..., House]):
    house = make(max_crops=2)
    with pytest.raises(InvalidRequestError, match="faces: expected at most 2, got 3"):
        await house.classify(b"", b"", b"")


def grey_crops(*brightness: int) -> CropBatch:
    return np.stack([np.full((16, 16, 1), value, dtype=np.uint8) for value in brightness])


async def test_a_tensor_of_crops_is_scored_as_it_is(house: House):
    answer = await house.analyzer.score(grey_crops(200, 10, 200), AnalyzeOptions(), CALL)
    assert answer.scores.argmax(axis=1).tolist() == [HAPPY, SAD, HAPPY]
    assert answer.model.name == "main"
    assert answer.timings.total_ms >= answer.timings.infer_ms >= 0
    assert house.detector.seen == []
    assert house.metric("ferserve_faces_total", model="main") == 3
    assert house.metric("ferserve_uncertain_faces_total", model="main") == 1
    assert house.nothing_in_flight()


async def test_one_face_without_scores_fails_a_tensor(house: House):
    house.worker.error = WorkerFailedError("no GPU")
    with pytest.raises(WorkerFailedError, match="no GPU"):
        await house.analyzer.score(grey_crops(*range(20)), AnalyzeOptions(), CALL)
    assert house.nothing_in_flight()


async def test_tensors_are_admitted_like_everything_else(make: Callable[..., House]):
    house = make(max_crops=2, max_images=1)
    for crops in (grey_crops(1, 2, 3), grey_crops(1)[:0]):
        with pytest.raises(InvalidRequestError, match=f"expected 1 to 2, got {len(crops)}"):
            await house.analyzer.score(crops, AnalyzeOptions(), CALL)
    house.worker.held = asyncio.get_running_loop().create_future()
    first = asyncio.create_task(house.analyzer.score(grey_crops(200), AnalyzeOptions(), CALL))
    await house.worker.begun.acquire()
    with pytest.raises(OverloadedError):
        await house.analyzer.score(grey_crops(200), AnalyzeOptions(), CALL)
    house.worker.held.set_result(None)
    assert len((await first).scores) == 1
    assert house.nothing_in_flight()


async def test_no_crops_are_no_items(house: House):
    assert (await house.classify()).items == ()


async def test_an_occlusion_map_is_of_the_face_asked_for_and_counts_as_its_faces(house: House):
    house.detector.faces = [face(0.1, score=0.9), face(0.7, score=0.8)]
    question = OcclusionQuestion(face=1, grid=3)
    answer = await house.analyzer.occlusion(picture(), AnalyzeOptions(), question, CALL)
    whole = await house.analyze(picture())
    assert answer.face.detection.box == whole.faces[1].detection.box
    assert answer.face.scores == pytest.approx(whole.faces[1].scores)
    assert answer.drops.shape == (3, 3)
    assert answer.square.centre.real == pytest.approx(0.75 * 320)
    assert house.admission.faces_in_flight == 0


async def test_an_occlusion_map_of_a_face_that_is_not_there_says_how_many_there_are(house: House):
    house.detector.faces = [face(0.1)]
    with pytest.raises(InvalidRequestError, match=r"^face: expected the place of one of 1 faces, .* got 1$"):
        await house.analyzer.occlusion(picture(), AnalyzeOptions(), OcclusionQuestion(face=1), CALL)
    assert house.admission.faces_in_flight == 0


async def test_an_occlusion_map_is_refused_where_its_faces_have_no_room(make: Callable[..., House]):
    house = make(max_inflight_faces=20)
    house.detector.go_on.clear()
    first = asyncio.create_task(house.analyze(picture()))
    await house.detecting()
    with pytest.raises(OverloadedError, match="faces"):
        await house.analyzer.occlusion(picture(), AnalyzeOptions(), OcclusionQuestion(grid=5), CALL)
    house.detector.go_on.set()
    await first


async def test_draining_answers_what_was_accepted_and_accepts_nothing_more(house: House):
    house.detector.go_on.clear()
    call = asyncio.create_task(house.analyze())
    await house.detecting()
    drain = asyncio.create_task(house.analyzer.drain(30.0))
    await asyncio.sleep(0)
    for refused in (
        house.analyze(),
        house.classify(),
        house.analyzer.analyze_many([], AnalyzeOptions(), CALL),
    ):
        with pytest.raises(NotReadyError):
            await refused
    assert house.analyzer.in_flight == 1
    house.detector.go_on.set()
    assert await drain
    assert len((await call).faces) == 2


async def test_what_is_not_answered_in_time_ends_with_closing(house: House):
    house.worker.held = asyncio.get_running_loop().create_future()
    call = asyncio.create_task(house.analyze())
    await house.worker.begun.acquire()
    assert not await house.analyzer.drain(0.001)
    await house.analyzer.close()
    with pytest.raises(NotReadyError):
        await call
    assert house.worker.closed
    assert house.other.closed
    assert house.nothing_in_flight()


async def test_a_probe_reaches_every_worker(house: House):
    await house.analyzer.probe()
    assert (house.worker.probes, house.other.probes) == (1, 1)


async def test_the_default_must_be_loaded(house: House):
    config, clock = AnalyzerConfig(threads=1), asyncio.get_running_loop().time
    site = thread_site(house.executor, house.detector, config, limits=DecodeLimits(), clock=clock)
    with pytest.raises(ValueError, match="default must be one of other, main, got nobody"):
        Analyzer(
            house.models,
            "nobody",
            site=site,
            config=config,
            admission=house.admission,
            bulk_share=0.05,
            observer=house.metrics,
            clock=clock,
        )


@pytest.mark.parametrize(
    "field",
    [
        "default_deadline_ms",
        "threads",
        "turn_ms",
        "images_at_once",
        "max_crops",
        "decode_budget_bytes",
        "max_decode_bytes",
    ],
)
def test_a_setting_out_of_range_is_named_with_its_value(field: str):
    with pytest.raises(ValueError, match=f"{field} must be at least 1, got 0"):
        AnalyzerConfig(**{field: 0})


def test_preparation_is_one_of_two():
    with pytest.raises(ValueError, match="preparation must be one of processes, threads, got 'lanes'"):
        AnalyzerConfig(preparation="lanes")
