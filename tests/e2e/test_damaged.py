"""Damaged inputs against a real gateway: each gets a clear answer, and nobody else notices."""

import sys

import httpx
import numpy as np
import pytest
from tests.damaged.corpus import corpus, sample
from tests.damaged.delivery import deliver
from tests.damaged.doors import Doors
from tests.damaged.pictures import whole

from ferserve.serving.process_family import PeakMemory, memory_bytes

pytestmark = pytest.mark.e2e
TOLERANCE = 1e-4
MAX_RESIDENT_BYTES = 350 * 10**6
SETTINGS = """
[http]
header_timeout_s = 2.0  # short, so that slow senders are done with soon
body_timeout_s = 2.0
keep_alive_s = 1

[analyzer]
default_deadline_ms = 60000  # a slow machine is not what is tested
"""


@pytest.fixture(scope="module")
def gateway(start_gateway, tmp_path_factory):
    settings = tmp_path_factory.mktemp("settings") / "short.toml"
    settings.write_text(SETTINGS)
    return start_gateway("--config", str(settings))


async def hold_out(gateway, inputs):
    """Deliver inputs; all that has to be true afterwards."""
    process = gateway.process.pid
    async with Doors(gateway.rest, gateway.grpc, whole("jpeg", 160)) as doors:
        for turn in range(3):
            await doors.good_neighbour(turn)
        with PeakMemory(process) as memory:
            report = await deliver(inputs, doors)
        async with httpx.AsyncClient(base_url=gateway.rest) as client:
            assert (await client.get("/readyz")).status_code == 200
        for turn in range(3):
            await doors.good_neighbour(turn)
    resident = memory_bytes(process)
    sys.stdout.write(
        f"\n{report.sent} inputs, {len(doors.neighbours)} neighbours, {resident / 1e6:.0f} MB afterwards, "
        f"{memory.most_bytes / 1e6:.0f} MB at most\n{report.table()}\n"
    )
    assert not report.faults, "\n".join(report.faults)
    assert report.sent == len(inputs)
    assert gateway.process.poll() is None
    expected = doors.neighbours[0][1]
    assert [door for door, scores in doors.neighbours if np.abs(scores - expected).max() > TOLERANCE] == []
    log = gateway.log.read_text()
    assert "Traceback" not in log
    assert " ERROR " not in log
    assert resident < MAX_RESIDENT_BYTES


async def test_a_few_of_each_kind(gateway):
    await hold_out(gateway, sample(60))


@pytest.mark.long
async def test_two_thousand_inputs(gateway):
    inputs = corpus()
    assert len(inputs) == 2000
    await hold_out(gateway, inputs)
