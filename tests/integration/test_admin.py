import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from ferserve.serving.admin import create_admin_app
from ferserve.serving.engine import EngineConfig, ModelsConfig, open_archives, running_engine
from ferserve.serving.health import Health
from ferserve.serving.metrics import Metrics
from ferserve.serving.requests import AnalyzeOptions, RequestContext


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def health():
    return Health()


@pytest.fixture
async def engine_and_metrics(tiny_archive):
    config, metrics = EngineConfig(models=ModelsConfig(archives=(str(tiny_archive),))), Metrics()
    async with running_engine(config, open_archives(config.models), metrics) as engine:
        yield engine, metrics


@pytest.fixture
async def client(engine_and_metrics, health, clock):
    engine, metrics = engine_and_metrics
    app = create_admin_app(engine, health, metrics, version="1.2.3", clock=clock)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        yield client


async def test_status_tells_what_runs(client, health, clock, tiny_archive):
    health.ready()
    clock.now_s += 12.5
    with health.accept():
        status = (await client.get("/status")).json()
    assert (status["state"], status["uptime_s"], status["build"]["version"]) == ("ready", 12.5, "1.2.3")
    assert status["in_flight"] == {"requests": 1, "images": 0, "faces": 0, "expected_faces_per_image": 2}
    (model,) = status["models"]
    assert (model["name"], model["is_default"], model["queued_faces"]) == ("tiny", True, 0)
    assert (model["worker"]["kind"], model["figures"]) == ("embedded", {"accuracy": 0.125})
    (worker,) = model["workers"]
    assert (worker["name"], worker["circuit"], worker["last_failure"]) == ("embedded", "closed", None)
    assert set(worker["failures"].values()) == {0}
    assert model["precision"] == "fp32"
    assert str(tiny_archive.parent) not in str(status)


async def test_metrics_count_what_was_answered(client, engine_and_metrics, face_photo):
    engine, _ = engine_and_metrics
    await engine.analyzer.analyze(face_photo, AnalyzeOptions(), RequestContext(request_id="r"))
    response = await client.get("/metrics")
    assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    samples = {
        (sample.name, sample.labels.get("model", "")): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }
    assert samples["ferserve_faces_total", "tiny"] == 1
    assert samples["ferserve_image_faces_count", ""] == 1


async def test_probes_follow_the_gateways_health(client, health):
    assert (await client.get("/readyz")).status_code == 503
    health.ready()
    assert (await client.get("/readyz")).status_code == 200
    assert (await client.get("/livez")).status_code == 200
    health.drain()
    assert (await client.get("/readyz")).status_code == 503
    assert (await client.get("/livez")).status_code == 200
