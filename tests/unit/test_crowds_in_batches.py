"""A crowd leaves the last slot to others, and its batches are no larger than pays."""

from collections.abc import AsyncIterator

import pytest
from tests.made_up.batches import Bench, Futures, faces_of, settle

from ferserve.serving.requests import Priority


@pytest.fixture
async def beside() -> AsyncIterator[Bench]:
    """Two slots, and a request `other` that is still being prepared."""
    bench = Bench(slots=2, max_batch_faces=4)
    bench.batcher.begin("other", Priority.INTERACTIVE)
    yield bench
    await bench.batcher.close()


def sizes(bench: Bench) -> list[int]:
    return [len(run.faces) for run in bench.worker.runs]


async def test_the_last_slot_is_kept_from_a_crowd_while_somebody_is_on_the_way(beside: Bench):
    crowd = beside.submit(*range(20), flow="crowd")
    await settle()
    assert sizes(beside) == [4]
    other = beside.submit(99, flow="other")
    await settle()
    assert beside.worker.runs[1].faces == [99]  # at once, and nobody with it
    beside.worker.runs[1].finish()
    assert await faces_of(other) == [99]
    beside.batcher.end("other", Priority.INTERACTIVE)
    for run in beside.worker.runs:  # grows as it goes
        if not run.answer.done():
            run.finish()
            await settle()
    assert await faces_of(crowd) == list(range(20))


async def test_a_kept_slot_is_free_once_nobody_comes(beside: Bench):
    crowd = beside.submit(*range(20), flow="crowd")
    await settle()
    assert sizes(beside) == [4]
    beside.batcher.end("other", Priority.INTERACTIVE)  # without a face
    await settle()
    assert sizes(beside) == [4, 4]
    for future in crowd:
        future.cancel()


async def test_a_crowd_goes_on_in_one_slot_however_many_are_on_the_way(beside: Bench):
    crowd = beside.submit(*range(20), flow="crowd")
    await settle()
    for number in range(3):
        assert len(beside.worker.runs) == number + 1
        beside.worker.runs[number].finish()
        await settle()
    for run in beside.worker.runs[3:]:  # what is left is no crowd any more
        run.finish()
    assert sizes(beside) == [4] * 5
    assert await faces_of(crowd) == list(range(20))


async def test_a_group_is_no_crowd(beside: Bench):
    group = beside.submit(*range(8), flow="group")
    await settle()
    assert sizes(beside) == [4, 4]
    for run in beside.worker.runs:
        run.finish()
    assert await faces_of(group) == list(range(8))


async def test_a_request_keeps_no_slot_for_itself(beside: Bench):
    beside.batcher.end("other", Priority.INTERACTIVE)
    for _ in range(8):  # photos of one request
        beside.batcher.begin("folder", Priority.INTERACTIVE)
    futures = beside.submit(*range(20), flow="folder")
    await settle()
    assert sizes(beside) == [4, 4]
    for future in futures:
        future.cancel()


async def test_no_slot_is_kept_from_interactive_faces_for_bulk(beside: Bench):
    beside.batcher.end("other", Priority.INTERACTIVE)
    beside.batcher.begin("bulk", Priority.BULK)
    beside.batcher.begin("more bulk", Priority.BULK)
    waiting = beside.submit(*range(100, 140), flow="bulk", priority=Priority.BULK)
    await settle()
    crowd = beside.submit(*range(40), flow="crowd")
    for _ in range(4):
        for run in beside.worker.runs[-2:]:
            if not run.answer.done():
                run.finish()
        await settle()
    faces = [face for run in beside.worker.runs[2:] for face in run.faces]
    assert sum(face < 100 for face in faces) >= 0.9 * len(faces)
    for future in (*waiting, *crowd):
        future.cancel()


async def test_bulk_does_not_overtake_where_a_slot_is_kept(beside: Bench):
    crowd = beside.submit(*range(20), flow="crowd")
    await settle()
    bulk = beside.submit(100, flow="bulk", priority=Priority.BULK)
    await settle()
    assert sizes(beside) == [4]
    for future in (*crowd, *bulk):
        future.cancel()


async def test_a_selfie_that_waits_is_not_part_of_a_crowds_batch(beside: Bench):
    crowd = beside.submit(*range(40), flow="crowd")
    await settle()
    other = beside.submit(*range(100, 104), flow="other")
    await settle()
    assert [run.faces[0] for run in beside.worker.runs] == [0, 100]
    selfie = beside.submit(200, flow="selfie")
    beside.worker.runs[1].finish()
    assert await faces_of(other) == [100, 101, 102, 103]
    await settle()
    assert beside.worker.runs[2].faces == [200]
    for future in (*crowd, *selfie):
        future.cancel()


async def test_of_two_idle_slots_one_is_for_those_who_are_no_crowd():
    bench = Bench(slots=2, max_batch_faces=4)
    crowd = bench.submit(*range(20), flow="crowd")
    selfie = bench.submit(200, flow="selfie")
    await settle()
    assert [run.faces for run in bench.worker.runs] == [[200], [0, 1, 2, 3]]
    for future in (*crowd, *selfie):
        future.cancel()
    await bench.batcher.close()


@pytest.mark.parametrize(
    ("job_s", "fixed_s", "most", "enough"), [(4.0, 15.0, 8, 7), (0.05, 5.0, 64, 55), (1.22, 0.76, 8, 4)]
)
async def test_full_batches_become_as_large_as_pays_and_stay_so(job_s: float, fixed_s: float, most: int, enough: int):
    bench = Bench(max_batch_faces=most, max_queued_faces=10**6)
    futures: Futures = []
    for _ in range(300):
        futures += bench.submit(*[1] * (2 * most), flow="crowd", deadline_s=1e9)
        await settle()
        run = bench.worker.runs[-1]
        bench.now_s += job_s * len(run.faces) + fixed_s
        run.finish()
        await settle()
    settled = sorted(sizes(bench)[200:])
    assert abs(settled[len(settled) // 2] - enough) <= 0.15 * most
    for future in futures:
        future.cancel()
    await bench.batcher.close()


async def test_batches_of_many_requests_are_as_large_as_is_allowed():
    bench = Bench(max_batch_faces=8)
    futures: Futures = []
    for number in range(100):
        while bench.batcher.queued_faces < 16:
            futures += bench.submit(1, flow=f"request {len(futures)}", deadline_s=1e9)
        await settle()
        run = bench.worker.runs[-1]
        bench.now_s += 1.22 * len(run.faces) + 0.76
        run.finish()
        await settle()
        assert number < 2 or len(run.faces) == 8
    for future in futures:
        future.cancel()
    await bench.batcher.close()
