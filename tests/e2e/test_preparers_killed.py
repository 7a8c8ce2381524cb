"""Processes that prepare photos are killed while the gateway is busy: nobody's answer is lost."""

import asyncio
import os
import signal
import urllib.request
from functools import partial
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.damaged.pictures import whole

from ferserve.serving.client import AsyncClient
from ferserve.serving.process_family import family_pids

pytestmark = pytest.mark.e2e
PHOTOS, AT_ONCE, KILLS = 240, 8, 3


def has_counted(served, **expected):
    text = urllib.request.urlopen(f"{served.admin}/metrics").read().decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return expected.items() <= {sample.name: sample.value for sample in samples}.items()


def is_any_there(pids):
    return any(Path(f"/proc/{pid}").exists() for pid in pids)


def preparers(served):
    """Without the gateway, and the process that they are forked from."""
    return set(family_pids(served.process.pid)[2:])


async def until(holds):
    async with asyncio.timeout(60):
        while not await asyncio.to_thread(holds):  # noqa: ASYNC110 - processes tell the test nothing
            await asyncio.sleep(0.05)


async def test_killed_processes_cost_no_answer(served):
    before = preparers(served)
    photo, todo, faces = whole("jpeg", 320), iter(range(PHOTOS)), []

    async def ask(client):
        for _ in todo:
            answer = await client.analyze(photo)
            faces.append(len(answer.faces))

    async def kill():
        for killed in range(KILLS):
            os.kill(min(preparers(served)), signal.SIGKILL)
            await until(partial(has_counted, served, ferserve_preparers_lost_total=killed + 1))
            await until(partial(has_counted, served, ferserve_preparers=len(before)))

    async with AsyncClient(served.grpc) as client:
        await asyncio.gather(kill(), *(ask(client) for _ in range(AT_ONCE)))
    assert faces == [1] * PHOTOS
    assert len(preparers(served)) == len(before)
    assert served.log.read_text().count("a process that prepares photos was ended by signal 9 (SIGKILL)") == KILLS


async def test_a_gateway_that_is_killed_leaves_no_process_behind(start_gateway):
    served = start_gateway()
    family = family_pids(served.process.pid)
    assert len(family) > 2
    served.process.kill()
    served.process.wait()
    await until(lambda: not is_any_there(family))


async def test_a_gateway_that_is_told_to_stop_ends_its_processes_first(start_gateway):
    served = start_gateway()
    family = family_pids(served.process.pid)
    assert served.stop() == 0
    assert not is_any_there(family)
