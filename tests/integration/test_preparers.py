"""Photos prepared on threads and in real processes of their own: the same crops, and what a process's death costs."""

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from tests.made_up import fragile_zygote
from tests.made_up.fragile_zygote import FATAL, ONCE, STUCK, WRONG

from ferserve.faces.decode import DecodeLimits
from ferserve.faces.decode_memory import MemoryNeededError
from ferserve.faces.detectors import load_detector
from ferserve.faces.errors import ArchiveError, InvalidImageError, InvalidRequestError, UnsupportedMediaError
from ferserve.faces.preprocess import PreprocessSpec
from ferserve.serving.analyzer_config import AnalyzerConfig
from ferserve.serving.errors import CallCancelledError, DeadlineError, NotReadyError, WorkerFailedError
from ferserve.serving.memory_budget import Grant
from ferserve.serving.preparer import FREE_BYTES, CropsWork, OcclusionWork, PhotoWork
from ferserve.serving.preparers import processes, remote
from ferserve.serving.preparers.messages import PreparerFaultError, PreparerSettings
from ferserve.serving.preparers.nursery import Nursery
from ferserve.serving.preparers.processes import ProcessSite
from ferserve.serving.preparers.protocol import PARKED
from ferserve.serving.preparers.threads import thread_site
from ferserve.serving.requests import AnalyzeOptions, OcclusionQuestion

SPEC = PreprocessSpec(size_px=48, channels=1)
SETTINGS = PreparerSettings(detector="haar", limits=DecodeLimits(), max_decode_bytes=2**28, turn_s=0.0)
ROOT = Path(__file__).parents[2]


class Watcher:
    """How many preparers there are, and were lost."""

    def __init__(self):
        self.ready = self.lost = 0
        self.can = []

    def preparers(self, ready):
        self.ready = ready

    def preparer_lost(self):
        self.lost += 1

    def can_prepare(self, any_can):
        self.can.append(any_can)


@pytest.fixture
def watcher():
    return Watcher()


@pytest.fixture
async def start_site(watcher, monkeypatch):
    """Starts sites of processes, which are closed after the test."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    started = []

    async def start(slots=1, *, settings=SETTINGS, program=fragile_zygote.__name__):
        site = await ProcessSite.start(Nursery(settings, program=program), slots=slots, observer=watcher)
        started.append(site)
        return site

    yield start
    for site in started:
        await site.close()


@pytest.fixture(params=["threads", "processes"])
async def site(request, start_site):
    if request.param == "processes":
        yield await start_site()
        return
    with ThreadPoolExecutor(2) as threads:
        config = AnalyzerConfig(threads=1, turn_ms=1)
        made = thread_site(threads, load_detector("haar"), config, limits=DecodeLimits(), clock=time.monotonic)
        made._turn_s = 0.0
        yield made


@pytest.fixture(scope="module")
def large_png():
    """A picture that takes more to decode than is free."""
    done, data = cv2.imencode(".png", np.zeros((2400, 3000, 3), dtype=np.uint8))
    assert done
    return data.tobytes()


def photo_work(data, **options):
    return PhotoWork(data=data, options=AnalyzeOptions(**options), spec=SPEC)


def begun(site, work, *, deadline_s=60.0, grant=None):
    return site.photo(work, deadline_s=time.monotonic() + deadline_s, grant=grant)


async def outcome(site, work, **asked):
    photo = begun(site, work, **asked)
    try:
        while (result := await photo.have_turn()) is PARKED:
            pass
        return result
    finally:
        photo.abandon()


def pids(site):
    return [preparer.pid for preparer in site._ready]


def origin_pid(site):
    return site._nursery._origin.pid


async def until(holds):
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110 - processes tell the test nothing
            await asyncio.sleep(0.005)


async def test_a_photo_comes_out_as_it_does_here(site, face_photo):
    detector, crops = load_detector("haar"), []
    assert site.detector == detector.name
    photo = await outcome(site, photo_work(face_photo, max_faces=1))
    with ThreadPoolExecutor(1) as threads:
        here = thread_site(threads, detector, AnalyzerConfig(threads=1), limits=DecodeLimits(), clock=time.monotonic)
        expected = await outcome(here, photo_work(face_photo, max_faces=1))
    for one in (photo, expected):
        assert (len(one.faces), one.width_px > 0, one.decode_s > 0, one.detect_s > 0) == (1, True, True, True)
        crops.append(one.faces[0].crop)
    np.testing.assert_array_equal(*crops)
    assert photo.faces[0].detection.box == expected.faces[0].detection.box


async def test_crops_and_covered_crops_are_prepared_too(site, face_photo):
    crops = await outcome(site, CropsWork(faces=(face_photo, b"none"), spec=SPEC))
    assert crops.items[0].shape == (48, 48, 1)
    assert isinstance(crops.items[1], UnsupportedMediaError)
    covered = OcclusionWork(photo=photo_work(face_photo), question=OcclusionQuestion(grid=2))
    assert len((await outcome(site, covered)).crops) == 5


async def test_what_a_picture_is_refused_for_comes_as_it_was_raised(site, face_photo):
    with pytest.raises(InvalidImageError, match="expected"):
        await outcome(site, photo_work(face_photo[:200]))
    with pytest.raises(DeadlineError):
        await outcome(site, photo_work(face_photo), deadline_s=-1.0)
    question = OcclusionWork(photo=photo_work(face_photo), question=OcclusionQuestion(face=99))
    with pytest.raises(InvalidRequestError, match="face: expected"):
        await outcome(site, question)


async def test_a_picture_says_what_memory_it_needs_and_holds_what_it_was_granted_until_it_is_done(site, large_png):
    with pytest.raises(MemoryNeededError) as needed:
        await outcome(site, photo_work(large_png))
    assert needed.value.needed_bytes > FREE_BYTES
    given_back = []
    grant = Grant(needed.value.needed_bytes, lambda: given_back.append(True))
    site.others_wait(True)
    photo = begun(site, photo_work(large_png), grant=grant)
    assert await photo.have_turn() is PARKED
    grant.let_go()  # by whoever asked
    assert not given_back
    photo.abandon()
    await until(lambda: given_back == [True])


async def test_a_photo_is_parked_only_where_others_wait_and_goes_on_where_it_was(site, face_photo):
    photo = begun(site, photo_work(face_photo))
    site.others_wait(True)
    assert await photo.have_turn() is PARKED
    site.others_wait(False)
    assert len((await photo.have_turn()).faces) > 0
    photo.abandon()


async def test_small_photos_are_parked_beside_each_other(start_site, face_photo):
    site = await start_site()
    site.others_wait(True)
    photos = [begun(site, photo_work(face_photo)) for _ in range(3)]
    for photo in photos:
        assert await photo.have_turn() is PARKED
    for photo in photos:
        while (prepared := await photo.have_turn()) is PARKED:
            pass
        assert len(prepared.faces) > 0


async def test_a_second_large_photo_finds_no_place_to_park_until_the_first_is_done(site, large_png):
    site.others_wait(True)

    def large():
        return begun(site, photo_work(large_png, exact=True), grant=Grant(64 * 2**20, lambda: None))

    first, second = large(), large()
    assert await first.have_turn() is PARKED
    assert await first.have_turn() is PARKED  # and decoded
    assert await second.have_turn() is not PARKED
    first.abandon()
    third = large()
    assert await third.have_turn() is PARKED
    third.abandon()


async def test_a_parked_photo_that_nobody_wants_any_more_is_not_gone_on_with(site, face_photo):
    site.others_wait(True)
    photo = begun(site, photo_work(face_photo))
    assert await photo.have_turn() is PARKED
    photo.abandon()
    with pytest.raises(CallCancelledError):
        await photo.have_turn()


async def test_a_killed_process_costs_time_and_no_answer(start_site, watcher, face_photo):
    site = await start_site(2)
    before = pids(site)
    asked = asyncio.gather(*(outcome(site, photo_work(face_photo)) for _ in range(12)))
    await asyncio.sleep(0)
    os.kill(before[0], signal.SIGKILL)
    assert [len(photo.faces) > 0 for photo in await asked] == [True] * 12
    await until(lambda: watcher.ready == 2)
    assert watcher.lost == 1
    assert len(set(pids(site)) - set(before)) == 1


async def test_a_parked_photo_whose_process_died_begins_anew(start_site, face_photo):
    site = await start_site()
    site.others_wait(True)
    photo = begun(site, photo_work(face_photo))
    assert await photo.have_turn() is PARKED
    os.kill(pids(site)[0], signal.SIGKILL)
    assert len((await photo.have_turn()).faces) > 0
    photo.abandon()


async def test_a_picture_that_ends_two_processes_fails_alone(start_site, watcher, face_photo, caplog):
    site = await start_site()
    results = await asyncio.gather(
        *(outcome(site, photo_work(data)) for data in (face_photo, face_photo + FATAL, face_photo)),
        return_exceptions=True,
    )
    assert isinstance(results[1], WorkerFailedError)
    assert [len(results[place].faces) > 0 for place in (0, 2)] == [True, True]
    await until(lambda: watcher.ready == 1)
    assert watcher.lost == 1, "the one that it had to itself is no loss"
    await until(lambda: caplog.messages.count("a process that prepares photos was ended by signal 11 (SIGSEGV)") >= 1)


async def test_a_picture_that_ended_one_process_has_another_chance(start_site, face_photo, tmp_path):
    site = await start_site()
    data = face_photo + ONCE + str(tmp_path / "seen").encode()
    assert len((await outcome(site, photo_work(data))).faces) > 0


async def test_a_fault_of_the_program_is_told_with_its_place(start_site, face_photo):
    site = await start_site()
    with pytest.raises(PreparerFaultError, match=r"(?s)fragile_zygote\.py.*ZeroDivisionError: made up"):
        await outcome(site, photo_work(face_photo + WRONG))
    assert len((await outcome(site, photo_work(face_photo))).faces) > 0


async def test_a_process_that_says_nothing_is_ended_some_time_after_its_caller_left(
    start_site, watcher, face_photo, monkeypatch
):
    monkeypatch.setattr(remote, "SILENCE_S", 0.01)
    site = await start_site()
    before, given_back = pids(site), []
    grant = Grant(FREE_BYTES + 1, lambda: given_back.append(True))
    photo = begun(site, photo_work(face_photo + STUCK), grant=grant)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await photo.have_turn()
    photo.abandon()
    grant.let_go()
    assert not given_back
    await until(lambda: watcher.lost == 1 and watcher.ready == 1)
    assert given_back == [True]
    assert pids(site) != before
    assert len((await outcome(site, photo_work(face_photo))).faces) > 0


async def test_a_photo_that_nobody_wants_any_more_is_not_asked_again(start_site, watcher, face_photo, monkeypatch):
    monkeypatch.setattr(remote, "SILENCE_S", 0.01)
    site = await start_site()
    photo = begun(site, photo_work(face_photo + STUCK))
    turn = asyncio.create_task(photo.have_turn())
    await until(lambda: any(preparer.photos for preparer in site._ready))
    photo.abandon()
    with pytest.raises(CallCancelledError):
        await turn
    await until(lambda: watcher.lost == 1 and watcher.ready == 1)


async def test_all_is_there_again_after_the_process_died_that_the_others_are_forked_from(
    start_site, watcher, face_photo
):
    site = await start_site(2)
    before = pids(site)
    asked = asyncio.gather(*(outcome(site, photo_work(face_photo)) for _ in range(4)))
    await asyncio.sleep(0)
    os.kill(origin_pid(site), signal.SIGKILL)
    assert [len(photo.faces) > 0 for photo in await asked] == [True] * 4
    await until(lambda: watcher.lost == 2 and watcher.ready == 2)
    assert not set(pids(site)) & set(before)


@pytest.fixture
def inherits_orphans():
    """As the first process of a container does."""
    prctl, set_child_subreaper = ctypes.CDLL(None).prctl, 36
    assert prctl(set_child_subreaper, 1, 0, 0, 0) == 0
    yield
    prctl(set_child_subreaper, 0, 0, 0, 0)


@pytest.mark.usefixtures("inherits_orphans")
async def test_processes_that_lost_what_they_were_forked_from_are_buried(start_site, watcher):
    site = await start_site(2)
    before = pids(site)
    os.kill(origin_pid(site), signal.SIGKILL)
    await until(lambda: watcher.lost == 2 and watcher.ready == 2)
    await until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in before))


async def test_a_detector_that_does_not_run_is_said_at_the_start(start_site, tmp_path):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no network")
    settings = PreparerSettings(detector=str(broken), limits=DecodeLimits(), max_decode_bytes=2**28, turn_s=0.0)
    with pytest.raises(ArchiveError, match=r"broken\.onnx"):
        await start_site(2, settings=settings)


async def test_a_photo_that_is_under_way_at_the_end_is_told_so(start_site, face_photo):
    site = await start_site()
    asked = asyncio.create_task(outcome(site, photo_work(face_photo + STUCK)))
    await until(lambda: site._ready[0].photos)
    await site.close()
    with pytest.raises(NotReadyError):
        await asked


async def test_processes_import_nothing_from_the_folder_that_they_are_started_in(start_site, tmp_path, monkeypatch):
    (tmp_path / "numpy.py").write_text("raise SystemExit('this came with the pictures')")
    monkeypatch.chdir(tmp_path)
    await start_site()


async def test_only_where_no_process_can_be_had_nobody_prepares(start_site, watcher, monkeypatch, face_photo):
    site = await start_site()
    assert watcher.can == [True]
    monkeypatch.setattr(processes, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(site._nursery, "_program", "no.such.program")
    os.kill(origin_pid(site), signal.SIGKILL)
    await until(lambda: watcher.can == [True, False])
    assert watcher.ready == 0
    monkeypatch.setattr(site._nursery, "_program", fragile_zygote.__name__)
    assert len((await outcome(site, photo_work(face_photo))).faces) > 0
    assert watcher.can[-1]


OWNER = """
import asyncio
from tests.integration.test_preparers import SETTINGS, Nursery, ProcessSite, Watcher, origin_pid, pids

async def main():
    site = await ProcessSite.start(Nursery(SETTINGS), slots=2, observer=Watcher())
    print(origin_pid(site), *pids(site), flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


def is_there(pid):
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_nobody_is_left_behind_by_an_owner_that_is_killed():
    owner = subprocess.Popen(  # noqa: ASYNC220 - it only starts
        [sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    with owner:
        started = [int(word) for word in (await asyncio.to_thread(owner.stdout.readline)).split()]
        assert len(started) == 3
        assert all(map(is_there, started))
        owner.kill()
    await until(lambda: not any(map(is_there, started)))
