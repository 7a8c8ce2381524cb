import asyncio

import pytest

from ferserve.faces.errors import Reason
from ferserve.serving.errors import NotReadyError
from ferserve.serving.health import Health, HealthState


@pytest.fixture
def health() -> Health:
    return Health()


def test_nothing_is_accepted_before_it_is_ready(health):
    with pytest.raises(NotReadyError, match="starting") as caught, health.accept():
        pass
    assert caught.value.reason is Reason.NOT_READY
    assert caught.value.retry_after_s is not None


def test_what_is_accepted_is_counted_until_it_ends_however_it_ends(health):
    health.ready()
    with health.accept(), health.accept():
        assert health.in_flight == 2
    with pytest.raises(RuntimeError), health.accept():
        raise RuntimeError
    assert health.in_flight == 0


def test_draining_refuses_and_there_is_no_way_back(health):
    health.ready()
    health.drain()
    health.ready()
    assert health.state is HealthState.DRAINING
    with pytest.raises(NotReadyError, match="draining"), health.accept():
        pass


def test_listeners_hear_the_present_state_and_each_change_once(health):
    heard: list[HealthState] = []
    health.subscribe(heard.append)
    health.ready()
    health.ready()
    health.drain()
    health.drain()
    assert heard == [HealthState.STARTING, HealthState.READY, HealthState.DRAINING]


async def test_a_drain_waits_for_what_was_accepted(health):
    health.ready()
    with health.accept():
        health.drain()
        waiting = asyncio.create_task(health.drained(timeout_s=60))
        await asyncio.sleep(0)
        assert not waiting.done()
    assert await waiting


async def test_a_drain_gives_up_when_its_time_is_over(health):
    health.ready()
    with health.accept():
        assert not await health.drained(timeout_s=0)


def test_without_a_worker_it_is_not_ready_and_with_one_it_is_again(health):
    seen = []
    health.subscribe(seen.append)
    health.served(False)
    health.ready()
    with pytest.raises(NotReadyError, match="without a worker"), health.accept():
        pass
    health.served(True)
    with health.accept():
        health.served(False)
        assert not health.is_ready
    health.served(False)
    health.served(True)
    assert seen == [
        HealthState.STARTING,
        HealthState.UNSERVED,
        HealthState.READY,
        HealthState.UNSERVED,
        HealthState.READY,
    ]


def test_a_worker_does_not_end_a_drain(health):
    health.ready()
    health.served(False)
    health.drain()
    health.served(True)
    assert health.state is HealthState.DRAINING
