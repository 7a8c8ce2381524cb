"""Pictures over lanes that are no processes: they die, run out of memory and hang when told to."""

import asyncio
from collections import Counter
from contextlib import asynccontextmanager

import pytest

from ferserve.faces.errors import ArchiveError, Reason
from ferserve.serving.bulk.chunks import NeedsMemory
from ferserve.serving.bulk.disk import OutputError
from ferserve.serving.bulk.feed import Content
from ferserve.serving.bulk.lane import LaneDiedError
from ferserve.serving.bulk.lane_pool import CHUNK_BYTES, CHUNK_PICTURES, LanePool
from ferserve.serving.errors import WorkerFailedError
from ferserve.serving.memory_budget import MemoryBudget

BUDGET = 1000


class FakeLane:
    """Says of each picture what it is called; `kills` end it, what starts with `big` wants memory."""

    def __init__(self, kills=(), fails=None, held=None):
        self.chunks = []
        self.is_asked = asyncio.Event()
        self.lives = 0
        self.is_closed = False
        self.granted = {}
        self.start_error = None
        self.dies_at_start = 0
        self._kills = Counter(kills)
        self._fails = fails or {}
        self._held = held

    async def start(self):
        if self.start_error is not None:
            raise self.start_error
        if self.dies_at_start:
            self.dies_at_start -= 1
            raise LaneDiedError(WorkerFailedError("it was ended by signal 9"))
        self.lives += 1

    async def score(self, asks):
        names = [ask.content.data for ask in asks]
        self.chunks.append(names)
        self.is_asked.set()
        await asyncio.sleep(0)
        if self._held is not None:
            await self._held.wait()
        for name in names:
            if self._kills[name]:
                self._kills[name] -= 1
                raise LaneDiedError(WorkerFailedError("it was ended by signal 11"))
            if name in self._fails:
                raise self._fails[name]
        return [self._answer(ask) for ask in asks]

    async def close(self):
        self.is_closed = True

    def _answer(self, ask):
        name = ask.content.data
        if name.startswith(b"big"):
            self.granted.setdefault(name, []).append(ask.granted_bytes)
            if len(self.granted[name]) == 1:
                return NeedsMemory(needed_bytes=2 * BUDGET)
        return [{"status": "ok", "path": name.decode()}]


@asynccontextmanager
async def pool_of(*lanes):
    clock = asyncio.get_running_loop().time
    memory = MemoryBudget(BUDGET, bulk_share=1.0, clock=clock)
    pool = LanePool(lanes, memory, clock=clock)
    async with pool.running():
        yield pool


async def rows_of(pool, *names):
    content = [Content(data=name, sha256=bytes(32)) for name in names]
    return [rows[0] for rows in await asyncio.gather(*map(pool.rows, content))]


def named(*names):
    return [{"status": "ok", "path": name.decode()} for name in names]


async def test_every_picture_gets_its_own_rows_whichever_lane_has_it():
    lanes = FakeLane(), FakeLane()
    names = [b"%d" % number for number in range(40)]
    async with pool_of(*lanes) as pool:
        assert await rows_of(pool, *names) == named(*names)
    assert all(lane.chunks for lane in lanes)
    assert sorted(name for lane in lanes for chunk in lane.chunks for name in chunk) == sorted(names)
    assert all(lane.is_closed for lane in lanes)


async def test_chunks_are_bounded_and_get_smaller_towards_the_end():
    lane = FakeLane()
    async with pool_of(lane) as pool:
        await rows_of(pool, *(b"%d" % number for number in range(100)))
    sizes = [len(chunk) for chunk in lane.chunks]
    assert max(sizes) == CHUNK_PICTURES
    assert sizes[-1] == 1
    assert sizes[1:] == sorted(sizes[1:], reverse=True)


async def test_large_pictures_do_not_share_a_chunk():
    lane = FakeLane()
    large = [b"%d" % number + b" " * (CHUNK_BYTES // 2) for number in range(4)]
    small = [b"%d" % number for number in range(20)]
    async with pool_of(lane) as pool:
        await rows_of(pool, *large, *small)
    assert [sum(name in large for name in chunk) for chunk in lane.chunks if set(chunk) & set(large)] == [1, 1, 1, 1]
    assert max(map(len, lane.chunks)) > 1


async def test_a_picture_that_needs_memory_is_asked_again_with_what_it_needs():
    lane = FakeLane()
    async with pool_of(lane) as pool:
        assert await rows_of(pool, b"big1", b"small", b"big2") == named(b"big1", b"small", b"big2")
    assert [granted[1] for granted in lane.granted.values()] == [2 * BUDGET, 2 * BUDGET]


async def test_a_dead_lanes_pictures_are_asked_again_one_by_one():
    lane = FakeLane(kills=[b"3"])
    names = [b"%d" % number for number in range(12)]
    async with pool_of(lane) as pool:
        assert await rows_of(pool, *names) == named(*names)
    deadly = next(chunk for chunk in lane.chunks if b"3" in chunk)
    again = [chunk for chunk in lane.chunks if chunk is not deadly and set(chunk) & set(deadly)]
    assert sorted(again) == sorted([name] for name in deadly)
    assert lane.lives == 2


async def test_a_picture_that_ends_its_lane_twice_is_an_error_and_its_neighbours_are_not():
    lane = FakeLane(kills=[b"3"] * 5)
    names = [b"%d" % number for number in range(12)]
    async with pool_of(lane) as pool:
        rows = await rows_of(pool, *names)
    assert rows[:3] + rows[4:] == named(*names[:3], *names[4:])
    assert (rows[3]["status"], rows[3]["code"]) == ("error", Reason.WORKER_FAILED)
    assert "signal 11" in rows[3]["message"]
    assert lane.lives == 3


async def test_a_picture_that_was_alone_from_the_start_has_a_second_chance_too():
    lane = FakeLane(kills=[b"x"])
    async with pool_of(lane) as pool:
        assert await rows_of(pool, b"x") == named(b"x")
    assert lane.chunks == [[b"x"], [b"x"]]


async def test_a_full_disk_for_crops_ends_the_run_and_not_only_a_picture():
    full = OutputError("the disk is full")
    lane = FakeLane(fails={b"1": full})
    async with pool_of(lane) as pool:
        with pytest.raises(OutputError):
            await rows_of(pool, b"0", b"1", b"2")
        with pytest.raises(OutputError):
            await rows_of(pool, b"3")


async def test_a_lane_that_cannot_be_started_again_ends_the_run():
    lane = FakeLane(kills=[b"1"])
    async with pool_of(lane) as pool:
        lane.start_error = ArchiveError("another file than before")
        with pytest.raises(ArchiveError):
            await rows_of(pool, b"1")


async def test_a_lane_that_dies_while_it_starts_is_started_again():
    lane = FakeLane(kills=[b"1"])
    lane.dies_at_start = 2
    async with pool_of(lane) as pool:
        lane.dies_at_start = 2
        assert await rows_of(pool, b"1") == named(b"1")
    assert lane.lives == 2


async def test_a_lane_that_dies_at_every_start_ends_the_run():
    lane = FakeLane(kills=[b"1"])
    async with pool_of(lane) as pool:
        lane.dies_at_start = 10
        with pytest.raises(WorkerFailedError, match="signal 9"):
            await rows_of(pool, b"1")


async def test_nothing_begins_where_one_lane_cannot_start():
    good, bad = FakeLane(), FakeLane()
    bad.start_error = ArchiveError("no such graph")
    with pytest.raises(ArchiveError, match="no such graph"):
        async with pool_of(good, bad):
            pytest.fail("it began")
    assert good.is_closed
    assert bad.is_closed


async def test_a_picture_that_nobody_waits_for_any_more_is_not_scored():
    held = asyncio.Event()
    lane = FakeLane(held=held)
    async with pool_of(lane) as pool:
        first = asyncio.create_task(rows_of(pool, b"first"))
        await lane.is_asked.wait()
        left = asyncio.create_task(rows_of(pool, b"left"))
        stays = asyncio.create_task(rows_of(pool, b"stays"))
        await asyncio.sleep(0)
        left.cancel()
        await asyncio.sleep(0)
        held.set()
        assert await first == named(b"first")
        assert await stays == named(b"stays")
    assert [b"left"] not in lane.chunks
