import asyncio
import threading

import pytest

from ferserve.serving.errors import DeadlineError, NotReadyError, OverloadedError
from ferserve.serving.memory_budget import Grant, MemoryBudget
from ferserve.serving.requests import Priority

INTERACTIVE, BULK = Priority
LATER_S = 1000.0


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def budget(clock: Clock) -> MemoryBudget:
    return MemoryBudget(100, bulk_share=0.05, clock=clock)


def ask(
    budget: MemoryBudget, size_bytes: int, *, flow: str = "a", priority: Priority = INTERACTIVE, left_s: float = LATER_S
) -> "asyncio.Task[Grant]":
    return asyncio.create_task(budget.take(size_bytes, flow=flow, priority=priority, deadline_s=100.0 + left_s))


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_those_who_fit_together_have_it_together(budget: MemoryBudget):
    first, second = await ask(budget, 60), await ask(budget, 40)
    assert budget.used_bytes == 100
    first.let_go()
    second.let_go()
    await settle()
    assert budget.used_bytes == 0


async def test_nobody_passes_the_large_one_that_is_next(budget: MemoryBudget):
    held = await ask(budget, 50)
    large = ask(budget, 100, flow="large")
    await settle()
    small = ask(budget, 10, flow="small")
    await settle()
    assert not large.done()
    assert not small.done()
    held.let_go()
    grant = await large
    assert not small.done()
    grant.let_go()
    (await small).let_go()


async def test_interactive_goes_before_bulk(budget: MemoryBudget):
    held = await ask(budget, 100)
    first = ask(budget, 100, flow="next in line")
    await settle()
    bulk = ask(budget, 100, flow="bulk", priority=BULK)
    await settle()
    selfie = ask(budget, 100, flow="selfie")
    await settle()
    held.let_go()
    (await first).let_go()
    (await selfie).let_go()
    assert not bulk.done()
    (await bulk).let_go()


async def test_a_thread_that_goes_on_keeps_it_from_others(budget: MemoryBudget):
    grant = await ask(budget, 100)
    assert grant.join()
    grant.let_go()  # the caller has left
    other = ask(budget, 1)
    await settle()
    assert not other.done()
    thread = threading.Thread(target=grant.let_go)
    thread.start()
    await other
    thread.join()
    assert not grant.join(), "what was given back is nobody's"


@pytest.mark.parametrize("is_next", [True, False])
async def test_who_leaves_the_line_holds_nobody_up(budget: MemoryBudget, *, is_next: bool):
    held = await ask(budget, 50)
    first, second, third = (ask(budget, size, flow=str(size)) for size in (100, 99, 40))
    await settle()
    leaving = first if is_next else second
    leaving.cancel()
    if is_next:
        second.cancel()
    await settle()
    if is_next:
        assert third.done()
    else:
        held.let_go()
        (await first).let_go()
        await third
    assert budget.waiting == 0


async def test_who_leaves_just_as_it_is_granted_gives_it_back(budget: MemoryBudget):
    held = await ask(budget, 100)
    second = ask(budget, 100)
    await settle()
    budget._free(held.size_bytes)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    assert budget.used_bytes == 0


async def test_a_deadline_ends_the_waiting(clock: Clock):
    budget = MemoryBudget(100, bulk_share=0.05, clock=clock)
    held = await ask(budget, 100)
    clock.now_s += 0.01
    held.let_go()
    await settle()
    held = await ask(budget, 100)  # measured: a hundred bytes take a hundredth of a second
    waiting = asyncio.create_task(budget.take(100, flow="b", priority=INTERACTIVE, deadline_s=clock.now_s + 0.06))
    with pytest.raises(DeadlineError):
        await waiting
    assert budget.waiting == 0
    held.let_go()


async def test_who_would_wait_past_the_deadline_is_refused_at_once(budget: MemoryBudget, clock: Clock):
    held = await ask(budget, 100)
    clock.now_s += 2.0
    held.let_go()
    await settle()
    held = await ask(budget, 100)
    with pytest.raises(OverloadedError, match="no memory for more large pictures") as caught:
        await budget.take(100, flow="b", priority=INTERACTIVE, deadline_s=clock.now_s + 1.0)
    assert caught.value.retry_after_s == pytest.approx(3.0)
    with pytest.raises(DeadlineError):
        await budget.take(100, flow="b", priority=INTERACTIVE, deadline_s=clock.now_s)


async def test_closing_ends_the_waiting(budget: MemoryBudget):
    await ask(budget, 100)
    waiting = ask(budget, 1)
    await settle()
    budget.close()
    with pytest.raises(NotReadyError):
        await waiting
    with pytest.raises(NotReadyError):
        await ask(budget, 1)


async def test_what_is_larger_than_the_budget_goes_alone(budget: MemoryBudget):
    held = await ask(budget, 10)
    large = ask(budget, 250, flow="large")
    await settle()
    assert not large.done()
    held.let_go()
    grant = await large
    assert grant.size_bytes == 250
    small = ask(budget, 1, flow="small")
    await settle()
    assert not small.done()
    grant.let_go()
    (await small).let_go()
    await settle()
    assert budget.used_bytes == 0
