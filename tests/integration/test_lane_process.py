"""Scoring in real processes of their own, over a made-up archive."""

import asyncio
import os
import signal

import pytest

from ferserve.faces.errors import ArchiveError
from ferserve.serving.bulk.chunks import Ask, NeedsMemory, ScorerConfig
from ferserve.serving.bulk.feed import Content
from ferserve.serving.bulk.lane import LaneDiedError, ProcessLane, ThreadLane
from ferserve.serving.bulk.local import bulk_engine, lanes_scoring, local_scoring, resolved
from ferserve.serving.engine import ModelsConfig
from ferserve.serving.errors import ModelNotFoundError
from ferserve.serving.requests import AnalyzeOptions, Priority

OPTIONS = AnalyzeOptions(priority=Priority.BULK)


@pytest.fixture
def engine(tiny_archive):
    return bulk_engine(ModelsConfig(archives=(str(tiny_archive),)), threads=1)


@pytest.fixture
def told(engine):
    fixed, _ = resolved(engine, OPTIONS)
    return ScorerConfig(engine=fixed, options=OPTIONS, crops=None)


@pytest.fixture
async def process(told):
    lane = ProcessLane(told)
    await lane.start()
    yield lane
    await lane.close()


def content(data: bytes, number: int = 0) -> Content:
    return Content(data=data, sha256=bytes([number]) * 32)


async def test_a_process_and_a_thread_give_the_same_rows(process, told, face_photo):
    asks = [Ask(content=content(data, number)) for number, data in enumerate([face_photo, b"none", face_photo[:2000]])]
    thread = ThreadLane(told)
    await thread.start()
    here, there = await thread.score(asks), await process.score(asks)
    await thread.close()
    assert here == there
    assert [rows[0]["status"] for rows in there] == ["ok", "error", "error"]
    assert [rows[0]["content_sha256"][:2] for rows in there] == ["00", "01", "02"]


async def test_a_picture_says_what_memory_it_needs_before_it_takes_any(process, face_photo):
    (answer,) = await process.score([Ask(content=content(face_photo), granted_bytes=1)])
    assert isinstance(answer, NeedsMemory)
    (rows,) = await process.score([Ask(content=content(face_photo), granted_bytes=answer.needed_bytes)])
    assert rows[0]["status"] == "ok"


async def test_a_process_that_is_killed_dies_with_its_signal_and_gets_another_life(process, face_photo):
    asks = [Ask(content=content(face_photo))]
    before = process.process_id
    os.kill(before, signal.SIGSTOP)
    scoring = asyncio.create_task(process.score(asks))
    os.kill(before, signal.SIGKILL)
    with pytest.raises(LaneDiedError, match=f"signal {signal.SIGKILL}"):
        await scoring
    await process.start()
    assert process.process_id != before
    assert (await process.score(asks))[0][0]["status"] == "ok"


async def test_a_process_imports_nothing_from_the_folder_that_it_is_started_in(told, tmp_path, monkeypatch):
    (tmp_path / "numpy.py").write_text("raise SystemExit('this came with the pictures')")
    monkeypatch.chdir(tmp_path)
    lane = ProcessLane(told)
    await lane.start()
    await lane.close()


async def test_a_process_that_answers_nothing_is_ended(told, face_photo):
    lane = ProcessLane(told)
    await lane.start()
    lane._chunk_timeout_s = 0.01
    os.kill(lane.process_id, signal.SIGSTOP)
    with pytest.raises(LaneDiedError, match="nothing came within"):
        await lane.score([Ask(content=content(face_photo))])
    await lane.close()


async def test_a_process_ends_when_the_other_side_is_gone(process):
    pid = process.process_id
    process._connection.close()
    assert await asyncio.to_thread(os.waitid, os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    process._connection = None


async def test_what_does_not_run_is_said_by_the_process_and_raised_here(told, tmp_path):
    models = told.engine.models
    changed = tmp_path / "changed.mar"
    changed.write_bytes(b"another file than the one that was hashed")
    object.__setattr__(models, "archives", (str(changed),))
    lane = ProcessLane(told)
    with pytest.raises(ArchiveError):
        await lane.start()
    await lane.close()


async def test_an_archive_is_chosen_by_its_name(engine):
    name = (await _settings(engine, AnalyzeOptions()))["model"]
    assert (await _settings(engine, AnalyzeOptions(model=name)))["model"] == name
    with pytest.raises(ModelNotFoundError, match=name):
        async with local_scoring(engine, AnalyzeOptions(model="other")):
            pytest.fail("it began")


async def _settings(engine, options):
    return (await asyncio.to_thread(resolved, engine, options))[1]


async def test_pictures_of_a_killed_process_are_scored_all_the_same(told, face_photo):
    lane = ProcessLane(told)
    async with lanes_scoring([lane], told.engine, {}) as scoring:
        work = asyncio.gather(*(scoring.scorer.rows(content(face_photo, number)) for number in range(8)))
        await asyncio.sleep(0)
        os.kill(lane.process_id, signal.SIGKILL)
        rows = await work
    assert [(one[0]["status"], one[0]["content_sha256"][:2]) for one in rows] == [
        ("ok", f"{number:02x}") for number in range(8)
    ]
