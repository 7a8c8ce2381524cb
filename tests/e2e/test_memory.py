"""What the memory of the gateway and its processes does under load, and that the check would see a leak."""

import asyncio
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.damaged.doors import Doors
from tests.damaged.expected import ANSWERED
from tests.damaged.inputs import RpcMessage
from tests.damaged.pictures import encode, face, whole
from tests.e2e import leaky_gateway
from tests.e2e.growth import Growth, growth

from ferserve.serving.process_family import PeakMemory, memory_bytes

pytestmark = [pytest.mark.e2e, pytest.mark.long]
REQUESTS = 10_000
ROUND = 50
"""Requests between two readings, which are taken while nothing is in flight."""
AT_ONCE = 8
FLAT_BELOW_BYTES = 256
"""Growth for each request that the interval has to lie below: 2.5 MB in ten thousand."""
MAX_BYTES = 350 * 10**6
WITH_DETECTION = (0, 1, 3, 4)
"""Turns of the doors that take photos, and not crops, of which nobody sends twelve million pixels."""
PATIENT = "[analyzer]\ndefault_deadline_ms = 3600000"  # a slow machine is not what is tested
LEAKY = (sys.executable, str(Path(leaky_gateway.__file__)))


async def measured_growth(served) -> Growth:
    """The growth over `REQUESTS` small photos through all doors; every tenth is damaged."""
    cut_off = whole("jpeg", 96)[:1000]
    places = asyncio.Semaphore(AT_ONCE)

    async def request(turn: int, doors: Doors) -> None:
        async with places:
            match turn % 20:
                case 5:
                    await doors.rpc(RpcMessage(method="Analyze", data=b"\xff"))
                case 15:
                    await doors.picture(cut_off, turn)
                case _:
                    await doors.good_neighbour(turn)

    readings = []
    async with Doors(served.rest, served.grpc, whole("jpeg", 96)) as doors:
        for first in range(0, REQUESTS, ROUND):
            await asyncio.gather(*(request(turn, doors) for turn in range(first, first + ROUND)))
            doors.neighbours.clear()
            readings.append((first + ROUND, memory_bytes(served.process.pid)))
    requests, held = np.array(readings, dtype=np.float64).T
    assert held.max() < MAX_BYTES
    found = growth(requests, held)
    sys.stdout.write(f"\n{held[-1] / 1e6:.0f} MB after {REQUESTS} requests, {found}\n")
    return found


def is_flat(found: Growth) -> bool:
    return found.high < FLAT_BELOW_BYTES


async def test_memory_stays_flat(start_gateway):
    assert is_flat(await measured_growth(start_gateway()))


async def test_a_planted_leak_is_seen(start_gateway):
    found = await measured_growth(start_gateway(launcher=LEAKY))
    assert not is_flat(found)
    assert found.low > leaky_gateway.LEAK_BYTES / 2


@pytest.mark.parametrize(
    ("kind", "size", "at_once"),
    [
        ("JPEG", (4000, 3000), AT_ONCE),
        ("PNG", (1920, 1080), AT_ONCE),
        ("PNG", (4000, 3000), 2),
    ],
)
async def test_large_photos_side_by_side_stay_within_the_bound(start_gateway, tmp_path, kind, size, at_once):
    settings = tmp_path / "patient.toml"
    settings.write_text(PATIENT)
    served = start_gateway("--config", str(settings))
    pid = served.process.pid
    at_start = memory_bytes(pid)
    photo = encode(face(240).resize(size), kind)
    todo, reasons = iter(range(60)), set()

    async def send(doors: Doors) -> None:
        for turn in todo:
            answers = await doors.picture(photo, WITH_DETECTION[turn % len(WITH_DETECTION)])
            reasons.update(answer.reason for answer in answers)

    with PeakMemory(pid) as memory:
        async with Doors(served.rest, served.grpc, whole("jpeg", 96)) as doors:
            await asyncio.gather(*(send(doors) for _ in range(at_once)))
    peak, after = memory.most_bytes, memory_bytes(pid)
    sys.stdout.write(
        f"\n{kind} of {size[0]} x {size[1]}: {at_start / 1e6:.0f} MB at start, "
        f"{peak / 1e6:.0f} MB at most, {after / 1e6:.0f} MB after\n"
    )
    assert reasons == {ANSWERED}
    assert peak < MAX_BYTES
