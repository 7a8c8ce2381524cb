"""Archives that are replaced under load, and several of them side by side, over the admin port of a real engine."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from ferserve.serving.admin import create_admin_app
from ferserve.serving.engine import CLOCK, Engine, EngineConfig, ModelsConfig, open_archives, running_engine
from ferserve.serving.errors import ModelNotFoundError, WorkerFailedError
from ferserve.serving.health import Health
from ferserve.serving.metrics import Metrics
from ferserve.serving.requests import AnalyzeOptions, OcclusionQuestion, Priority, RequestContext

CROP = (24, 24, 1)


class Place:
    """A running engine of two archives, the first of which lies where a test can replace it."""

    def __init__(self, engine: Engine, admin: httpx.AsyncClient, path: Path) -> None:
        self.engine = engine
        self.admin = admin
        self.path = path

    async def reload(self, name: str = "tiny", **body: str) -> httpx.Response:
        return await self.admin.post(f"/archives/{name}:reload", json=body or None)

    async def score_crops(self) -> str:
        """Archive that scored a tensor of crops."""
        patient = RequestContext(request_id="r", deadline_s=CLOCK() + 600)
        answer = await self.engine.analyzer.score(np.zeros((3, *CROP), np.uint8), AnalyzeOptions(), patient)
        return answer.model.archive_sha256

    async def occlude(self, photo: bytes) -> str:
        """Archive that told what the one face's expression rests on."""
        patient = RequestContext(request_id="r", deadline_s=CLOCK() + 600)
        answer = await self.engine.analyzer.occlusion(photo, AnalyzeOptions(), OcclusionQuestion(grid=2), patient)
        return answer.model.archive_sha256

    async def score(self, photo: bytes, model: str = "") -> tuple[str, np.ndarray]:
        """Archive and scores of the one face."""
        patient = RequestContext(request_id="r", deadline_s=CLOCK() + 600)
        answer = await self.engine.analyzer.analyze(photo, AnalyzeOptions(model=model), patient)
        return answer.model.archive_sha256, answer.faces[0].scores


@pytest.fixture
def other_tiny(pack_archive, tiny_graph_of_seed) -> Path:
    """An archive named `tiny` too, whose scores are others."""
    return pack_archive("tiny", graph=tiny_graph_of_seed(1))


@pytest.fixture
async def place(tiny_archive, both_precisions, tmp_path) -> AsyncIterator[Place]:
    path = tmp_path / "served.mar"
    shutil.copyfile(tiny_archive, path)
    config = EngineConfig(models=ModelsConfig(archives=(str(path), str(both_precisions)), precision="fp32"))
    metrics = Metrics()
    async with running_engine(config, open_archives(config.models), metrics) as engine:
        app = create_admin_app(engine, Health(), metrics, version="1", clock=CLOCK)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as admin:
            yield Place(engine, admin, path)


async def test_several_archives_answer_by_name(place, face_photo):
    first, _ = await place.score(face_photo)
    assert first == (await place.score(face_photo, "tiny"))[0]
    assert first != (await place.score(face_photo, "both"))[0]
    assert [model.name for model in place.engine.analyzer.models()] == ["tiny", "both"]
    with pytest.raises(ModelNotFoundError, match="expected one of both, tiny, got 'none'"):
        await place.score(face_photo, "none")


async def test_a_reloaded_archive_answers_from_then_on(place, other_tiny, face_photo):
    before, scores_before = await place.score(face_photo)
    shutil.copyfile(other_tiny, place.path)
    answer = (await place.reload()).json()
    after, scores_after = await place.score(face_photo)
    assert after == answer["model"]["archive_sha256"] != before
    assert np.abs(scores_after - scores_before).max() > 1e-3
    assert answer["model"]["is_default"]
    status = (await place.admin.get("/status")).json()
    assert status["models"][0]["archive_sha256"] == after
    (exposed,) = [
        sample.labels["archive_sha256"]
        for family in text_string_to_metric_families((await place.admin.get("/metrics")).text)
        for sample in family.samples
        if sample.name == "ferserve_archive_info" and sample.labels["model"] == "tiny"
    ]
    assert exposed == after


async def test_no_request_is_lost_while_archives_change(place, tiny_archive, other_tiny, face_photo):
    done, answered, seen = asyncio.Event(), asyncio.Semaphore(0), []

    async def ask() -> None:
        while not done.is_set():
            seen.append(await place.score(face_photo))
            await place.score_crops()
            await place.occlude(face_photo)
            answered.release()

    async with asyncio.TaskGroup() as askers:  # one request that failed would end the test
        for _ in range(4):
            askers.create_task(ask())
        for archive in (other_tiny, tiny_archive, other_tiny):
            shutil.copyfile(archive, place.path)
            assert (await place.reload()).status_code == 200
            for _ in range(8):  # some of them found the model before, some find this one
                await answered.acquire()
        done.set()
    by_archive: dict[str, list[np.ndarray]] = {}
    for sha256, scores in seen:
        by_archive.setdefault(sha256, []).append(scores)
    assert len(by_archive) == 2
    for scores in by_archive.values():  # each answer is from the archive that it names
        assert np.ptp(np.stack(scores), axis=0).max() < 1e-5


async def test_the_old_model_ends_with_its_last_request(place, face_photo):
    old = place.engine.shelf.models["tiny"]
    with old.in_use("a", Priority.INTERACTIVE):
        await place.reload()
        await asyncio.sleep(0)
        await old.worker.probe()
    (retiring,) = place.engine.shelf._retiring
    await retiring
    with pytest.raises(WorkerFailedError):
        await old.worker.probe()
    await place.score(face_photo)


async def test_what_cannot_be_served_leaves_the_old_one_in_its_place(place, both_precisions, face_photo):
    before, _ = await place.score(face_photo)
    good = place.path.read_bytes()
    for content, told in (
        (b"no archive", "expected a .mar"),
        (both_precisions.read_bytes(), "expected an archive named tiny, got both"),
    ):
        place.path.write_bytes(content)
        answer = await place.reload()
        assert answer.status_code == 409
        assert told in answer.json()["error"]["message"]
    place.path.write_bytes(good)
    wrong_hash = await place.reload(sha256="0" * 64)
    assert wrong_hash.status_code == 409
    assert "expected SHA-256 0000" in wrong_hash.json()["error"]["message"]
    assert (await place.score(face_photo))[0] == before


@pytest.mark.parametrize("body", [b"{", b"[]", b"{}", b'{"sha256": 1}', b'{"sha256": "abc"}'])
async def test_a_malformed_request_is_refused(place, body):
    answer = await place.admin.post("/archives/tiny:reload", content=body)
    assert answer.status_code == 400
    assert "expected no body, or" in answer.json()["error"]["message"]


async def test_an_archive_that_is_not_loaded_is_not_found(place):
    answer = await place.reload("none")
    assert answer.status_code == 404
    assert answer.json()["error"]["reason"] == "MODEL_NOT_FOUND"
    assert (await place.admin.get("/archives/tiny:reload")).status_code == 405
