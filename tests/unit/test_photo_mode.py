"""Photo mode: an analyzer whose photos are searched and scored by fake workers behind a real pool."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from ferserve.faces.decode import DecodeLimits
from ferserve.faces.errors import Reason
from ferserve.faces.preprocess import PreprocessSpec
from ferserve.faces.types import Box, Detection, Quality, ScoredFace
from ferserve.faces.wire import PhotoOptions, RemoteError, ScoredPhoto
from ferserve.serving.admission import Admission, AdmissionConfig
from ferserve.serving.analyzer import Analyzer
from ferserve.serving.analyzer_config import AnalyzerConfig
from ferserve.serving.batcher import Batcher
from ferserve.serving.errors import DeadlineError, WorkerFailedError
from ferserve.serving.metrics import Metrics
from ferserve.serving.models import LoadedModel
from ferserve.serving.policy import BatchPolicyConfig
from ferserve.serving.preparers.threads import thread_site
from ferserve.serving.remote_photos import RemotePhotos
from ferserve.serving.requests import AnalyzeOptions, ImageAnalysis, ModelInfo, RequestContext
from ferserve.serving.worker_board import ModelWorkers
from ferserve.serving.workers.config import WorkersConfig
from ferserve.serving.workers.pool import WorkerPool
from ferserve.serving.workers.protocol import WorkerInfo
from ferserve.serving.workers.replica import WorkerSource

SPEC = PreprocessSpec(size_px=16, channels=1)
INFO = WorkerInfo(kind="fake", model="m", version="1", crop_shape=(16, 16, 1), precision="fp32", detail="")
CONFIG = WorkersConfig(kind="torchserve", endpoints=("a:1", "b:1"), photo_mode=True, call_timeout_s=5.0)
MODEL = ModelInfo(
    name="m",
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
    is_default=True,
)
CALL = RequestContext(request_id="r")
SCORES = np.array([0.0, 0.0, 0.0, 0.9, 0.1, 0.0, 0.0], np.float32)


def scored(faces=1):
    face = ScoredFace(
        detection=Detection(box=Box(x0=1, y0=2, x1=3, y1=4), score=0.9),
        scores=SCORES,
        uncertain=False,
        quality=Quality(size_px=2.0, sharpness=1.0, yaw=None, roll_deg=None),
    )
    times = {"decode_s": 0.001, "detect_s": 0.002, "preprocess_s": 0.003, "infer_s": 0.004}
    return ScoredPhoto(
        width_px=64, height_px=48, detector="there", found=faces + 1, skipped=1, faces=(face,) * faces, **times
    )


class PhotoServer:
    """A worker that takes photos; a test tells it how it fares."""

    concurrency = 1

    def __init__(self):
        self.asked = []
        self.crops = 0
        self.error = None
        self.hold = None
        self.cancelled = asyncio.Event()

    async def photos(self, photos, options, *, timeout_s):
        self.asked.append((dict(photos), options, timeout_s))
        if self.hold is not None:
            try:
                await self.hold.wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        if self.error is not None:
            raise self.error
        bad = RemoteError(Reason.INVALID_IMAGE, "expected a whole picture")
        return {name: bad if data == b"bad" else scored() for name, data in photos.items()}

    async def infer(self, batch, *, timeout_s):  # noqa: ARG002 - as every worker
        self.crops += len(batch)
        return np.repeat(SCORES[None], len(batch), axis=0)

    async def probe(self):
        pass

    def describe(self):
        return INFO

    async def close(self):
        pass

    async def start(self):
        return self


class NoDetector:
    name = "here"

    def default_size_px(self, _height_px, _width_px):
        return 320

    def detect(self, image, *, size_px=None):  # noqa: ARG002 - as every detector
        pytest.fail("searched here")


class House:
    def __init__(self, servers):
        clock = asyncio.get_running_loop().time
        self.seen, self.metrics = ModelWorkers(), Metrics()
        self.executor, config = ThreadPoolExecutor(1), AnalyzerConfig(threads=1)
        sources = [WorkerSource(name=f"s{index}", start=server.start) for index, server in enumerate(servers)]
        self.pool = WorkerPool(
            INFO, sources, CONFIG, concurrency=1, call_timeout_s=5.0, observer=self.seen, clock=clock
        )
        photos = RemotePhotos(
            self.pool,
            slots=self.pool.concurrency,
            bulk_share=0.05,
            observer=self.metrics.preparation(),
            clock=clock,
        )
        batcher = Batcher(self.pool, BatchPolicyConfig(), observer=self.metrics.batches("m"), clock=clock)
        self.admission = Admission(AdmissionConfig(), bulk_share=0.05, observer=self.metrics, clock=clock)
        self.analyzer = Analyzer(
            {"m": LoadedModel(info=MODEL, spec=SPEC, worker=self.pool, batcher=batcher, photos=photos)},
            "m",
            site=thread_site(self.executor, NoDetector(), config, limits=DecodeLimits(), clock=clock),
            config=config,
            admission=self.admission,
            bulk_share=0.05,
            observer=self.metrics,
            clock=clock,
        )

    def analyze(self, data=b"photo", context=CALL, **options):
        return self.analyzer.analyze(data, AnalyzeOptions(**options), context)

    def nothing_in_flight(self):
        return (self.admission.images_in_flight, self.admission.faces_in_flight) == (0, 0)


@pytest.fixture
def servers():
    return [PhotoServer(), PhotoServer()]


@pytest.fixture
async def house(servers):
    house = House(servers)
    await house.pool.start()
    yield house
    assert house.nothing_in_flight()
    await house.analyzer.close()
    house.executor.shutdown()


async def test_a_worker_searches_and_scores_and_nobody_here(house, servers):
    answer = await house.analyze(b"photo", detection_size_px=320, max_faces=4)
    assert (answer.width_px, answer.height_px, answer.detector) == (64, 48, "there")
    np.testing.assert_array_equal(answer.faces[0].scores, SCORES)
    assert (answer.model.name, answer.timings.detect_ms, answer.timings.infer_ms) == ("m", 2.0, 4.0)
    assert answer.timings.total_ms >= answer.timings.queue_ms
    ((photos, options, timeout_s),) = servers[0].asked + servers[1].asked
    assert list(photos.values()) == [b"photo"]
    assert options == PhotoOptions(detection_size_px=320, max_faces=4)
    assert 0 < timeout_s <= 5.0


async def test_a_bad_picture_is_the_callers_error_and_no_workers_fault(house, servers):
    with pytest.raises(RemoteError, match="expected a whole picture") as caught:
        await house.analyze(b"bad")
    assert caught.value.reason is Reason.INVALID_IMAGE
    assert len(servers[0].asked + servers[1].asked) == 1, "it was tried again"


async def test_of_many_a_bad_one_has_its_own_outcome(house):
    outcomes = await house.analyzer.analyze_many([b"a", b"bad", b"c"], AnalyzeOptions(), CALL)
    assert [type(outcome) for outcome in outcomes] == [ImageAnalysis, RemoteError, ImageAnalysis]


async def test_a_photo_whose_worker_fails_is_tried_on_the_other(house, servers):
    servers[0].error = servers[1].error = WorkerFailedError("broken")
    with pytest.raises(WorkerFailedError, match="broken"):
        await house.analyze()
    assert [len(server.asked) for server in servers] == [1, 1]
    servers[1].error = None
    for _ in range(3):
        assert len((await house.analyze()).faces) == 1


async def test_who_waits_too_long_gets_the_deadline_and_the_worker_is_told(house, servers):
    servers[0].hold = servers[1].hold = asyncio.Event()
    soon = RequestContext(request_id="r", deadline_s=asyncio.get_running_loop().time() + 0.05)
    with pytest.raises(DeadlineError):
        await house.analyze(context=soon)
    for asked in [server for server in servers if server.asked]:  # both, if half of the time was left for the second
        await asked.cancelled.wait()


async def test_ready_made_crops_go_the_usual_way(house, servers):
    crop = cv2.imencode(".png", np.full((16, 16), 128, np.uint8))[1].tobytes()
    (item,) = (await house.analyzer.classify([crop], AnalyzeOptions(), CALL)).items
    np.testing.assert_array_equal(item.scores, SCORES)
    assert sum(server.crops for server in servers) == 1


@pytest.mark.parametrize(("kind", "endpoints"), [("embedded", ()), ("triton", ("a:1",))])
def test_only_torchserve_takes_photos(kind, endpoints):
    with pytest.raises(ValueError, match=f"photo_mode must be false for kind {kind}"):
        WorkersConfig(kind=kind, endpoints=endpoints, photo_mode=True)
