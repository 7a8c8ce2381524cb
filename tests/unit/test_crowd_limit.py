"""What crowds leave to others, over stages that share places; with a clock that only the test moves."""

import asyncio

import pytest
from tests.made_up.dispatchers import one_by_one
from tests.made_up.waiting import Waiting

from ferserve.serving.benchmarks.virtual_time import VirtualTimeLoop
from ferserve.serving.crowd_limit import LEAST_PART, MOST_DEBT_S, CrowdLimit
from ferserve.serving.requests import Priority

CROWD = frozenset({(Priority.INTERACTIVE, "crowd")})
BULK_CROWD = frozenset({(Priority.BULK, "crowd")})
UNIT_S = 0.1


class Bench:
    """A limit of some places, and two stages in which one crowd waits each."""

    def __init__(self, places: int = 2, priority: Priority = Priority.INTERACTIVE) -> None:
        self.now_s = 0.0
        self.limit = CrowdLimit(places, lambda: self.now_s)
        self.stage, self.other = Waiting(crowd=priority), Waiting(crowds=priority)
        for stage in (self.stage, self.other):
            self.limit.join(stage)
        self.limit.begin("crowd", priority)
        self.limit.begin("crowds", priority)

    def others_come(self, count: int, priority: Priority = Priority.INTERACTIVE) -> None:
        for number in range(count):
            self.limit.begin(f"other {number}", priority)
        self.stage.at_work = count

    def run_unit(self, stage: Waiting, duration_s: float = UNIT_S) -> None:
        self.limit.started(stage, CROWD)
        self.now_s += duration_s
        self.limit.finished(stage, CROWD)

    def may_start(self, stage: Waiting, priority: Priority = Priority.INTERACTIVE) -> bool:
        return self.limit.may_start(stage, priority)


async def test_alone_crowds_have_all_places():
    bench = Bench()
    for _ in range(3):
        assert bench.may_start(bench.stage)
        bench.limit.started(bench.stage, CROWD)


async def test_beside_another_crowds_have_one_of_two_places_over_all_stages():
    bench = Bench()
    bench.others_come(1)
    assert bench.may_start(bench.stage)
    bench.limit.started(bench.stage, CROWD)
    assert not bench.may_start(bench.stage)
    assert not bench.may_start(bench.other)
    bench.limit.end("other 0", Priority.INTERACTIVE)
    assert bench.may_start(bench.other)


async def test_of_a_single_place_nothing_is_kept():
    bench = Bench(places=1)
    bench.others_come(3)
    bench.limit.started(bench.stage, CROWD)
    assert bench.may_start(bench.other)


async def test_stages_take_turns():
    bench = Bench()
    bench.others_come(1)
    for stage, waits in ((bench.stage, bench.other), (bench.other, bench.stage)) * 2:
        assert bench.may_start(stage)
        assert not bench.may_start(waits)
        bench.run_unit(stage)


async def test_a_stage_without_a_slot_keeps_nobody_waiting():
    bench = Bench()
    bench.others_come(1)
    bench.stage.has_idle_slot = False
    assert bench.may_start(bench.other)


@pytest.mark.parametrize("others", [2, 3])
async def test_who_had_more_than_one_requests_part_waits(others: int):
    bench = Bench()
    bench.others_come(others)
    bench.run_unit(bench.stage)
    part = 2 / (others + 1)
    bench.now_s = 0.99 * UNIT_S / part
    assert not bench.may_start(bench.other)
    bench.now_s = 1.01 * UNIT_S / part
    assert bench.may_start(bench.other)


async def test_a_place_that_nobody_else_wants_is_theirs_all_the_same():
    bench = Bench()
    bench.others_come(7)
    bench.run_unit(bench.stage)
    bench.stage.at_work = 1
    assert bench.may_start(bench.other)


async def test_nothing_is_saved_up():
    bench = Bench()
    bench.others_come(3)
    bench.now_s += 100.0
    bench.run_unit(bench.stage)
    assert not bench.may_start(bench.other)


async def test_however_many_others_come_something_is_left():
    bench = Bench()
    bench.others_come(1000)
    bench.run_unit(bench.stage)
    bench.now_s = 1.01 * UNIT_S / (2 * LEAST_PART)
    assert bench.may_start(bench.other)


async def test_debts_outlast_the_moment_between_two_turns():
    bench = Bench()
    bench.others_come(3)
    bench.limit.started(bench.stage, CROWD)
    bench.now_s += UNIT_S
    bench.stage.flows, bench.other.flows = {}, {}
    bench.limit.finished(bench.stage, CROWD)  # now no crowd is anywhere
    bench.stage.flows = {"crowd": Priority.INTERACTIVE}
    bench.limit.changed()
    assert not bench.may_start(bench.stage)


async def test_nobody_waits_for_bulk_that_waits_for_others():
    bench = Bench()
    bench.others_come(1)
    bulk = Waiting(bulk=Priority.BULK)
    bench.limit.join(bulk)
    for number in range(5):
        bench.limit.begin(f"bulk {number}", Priority.BULK)
    bench.stage.at_work = 5
    for stage in (bench.stage, bench.other):
        bench.run_unit(stage, 100 * UNIT_S)
    assert not bench.may_start(bulk, Priority.BULK)
    assert bench.may_start(bench.stage)
    bench.now_s += 2 * MOST_DEBT_S / (2 * LEAST_PART)
    assert bench.may_start(bulk, Priority.BULK)


async def test_interactive_crowds_leave_nothing_to_bulk():
    bench = Bench()
    bench.others_come(3, Priority.BULK)
    bench.limit.started(bench.stage, CROWD)
    bench.now_s += UNIT_S
    assert bench.may_start(bench.other)


async def test_bulk_crowds_leave_to_interactive_ones_and_to_bulk():
    for priority in Priority:
        bench = Bench(priority=Priority.BULK)
        bench.others_come(1, priority)
        bench.limit.started(bench.stage, BULK_CROWD)
        assert not bench.may_start(bench.other, Priority.BULK)


async def test_everybody_looks_again_when_somebody_goes():
    bench = Bench()
    bench.others_come(1)
    before = bench.other.looked
    bench.limit.end("other 0", Priority.INTERACTIVE)
    assert bench.other.looked > before


async def test_everybody_looks_again_when_the_last_of_the_others_becomes_a_crowd():
    bench = Bench()
    bench.others_come(1)
    before = bench.other.looked
    bench.stage.flows["other 0"] = Priority.INTERACTIVE
    bench.limit.begin("other 0", Priority.INTERACTIVE)
    assert bench.may_start(bench.other)
    assert bench.other.looked > before


async def test_many_changes_at_once_are_one():
    bench = Bench()
    before = bench.other.looked
    for _ in range(100):
        bench.limit.changed_soon()
    await asyncio.sleep(0)
    assert bench.other.looked == before + 1


async def test_what_has_gone_on_for_long_stops_for_others_only_where_it_takes_from_them():
    bench = Bench()
    assert not bench.limit.is_contended(bench.stage)  # nobody but crowds
    bench.others_come(1)
    assert bench.limit.is_contended(bench.stage)  # of the other stage's crowd
    bench.other.flows = {}
    bench.limit.end("crowds", Priority.INTERACTIVE)
    assert not bench.limit.is_contended(bench.stage)
    bench.limit.begin("one more", Priority.INTERACTIVE)
    assert bench.limit.is_contended(bench.stage)  # two others want two places


async def test_a_stage_that_left_holds_nothing():
    bench = Bench()
    bench.others_come(1)
    bench.limit.started(bench.stage, CROWD)
    bench.limit.leave(bench.stage)
    bench.limit.finished(bench.stage, CROWD)
    assert bench.may_start(bench.other)


class Busy:
    """A stage of two slots for jobs of `UNIT_S`, in virtual time, and three others who always want one."""

    def __init__(self, crowds: int) -> None:
        self.done = {"crowd": 0, "other": 0}
        loop = asyncio.get_running_loop()
        self.dispatcher = one_by_one(self.run, slots=2, clock=loop.time)
        for number in range(crowds):
            self.submit("crowd", number, 10_000)

    def submit(self, kind: str, number: int, jobs: int = 1) -> "list[asyncio.Future[object]]":
        return self.dispatcher.submit(
            [kind] * jobs, flow=f"{kind} {number}", priority=Priority.INTERACTIVE, deadline_s=1e9, admitted=True
        )

    async def run(self, kinds: list[str], _left_s: float) -> list[None]:
        await asyncio.sleep(UNIT_S)
        self.done[kinds[0]] += 1
        return [None]

    async def ask_on(self, number: int) -> None:
        while True:
            await asyncio.gather(*self.submit("other", number))


@pytest.mark.parametrize("crowds", [1, 5])
def test_all_crowds_together_have_the_part_of_one_request(crowds: int):
    async def shares() -> dict[str, int]:
        busy = Busy(crowds)
        others = [asyncio.create_task(busy.ask_on(number)) for number in range(3)]
        await asyncio.sleep(100.0)
        for other in others:
            other.cancel()
        await busy.dispatcher.drain(0.0)
        await busy.dispatcher.close()
        return busy.done

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        done = runner.run(shares())
    assert sum(done.values()) == pytest.approx(2 * 100.0 / UNIT_S, rel=0.02)  # no place is idle
    assert done["crowd"] / sum(done.values()) == pytest.approx(1 / 4, rel=0.05)
