"""A gateway under mixed, corrupt and huge inputs, for half an hour or `FERSERVE_SOAK_MINUTES`."""

import asyncio
import os
import sys
import time
from contextlib import AsyncExitStack
from itertools import count, cycle

import numpy as np
import pytest
from PIL import Image
from tests.damaged.corpus import sample
from tests.damaged.delivery import deliver
from tests.damaged.doors import Doors
from tests.damaged.expected import ANSWERED
from tests.damaged.pictures import encode, face, whole
from tests.e2e.growth import growth

from ferserve.serving.process_family import PeakMemory, memory_bytes

pytestmark = [pytest.mark.e2e, pytest.mark.long]
MINUTES = float(os.environ.get("FERSERVE_SOAK_MINUTES", "30"))
DAMAGED, GOOD, AT_ONCE = 60, 60, 6
"""In a round: inputs of the damaged corpus, at least one of each kind, drawn anew; whole photos of every size."""
FLAT_BELOW_BYTES_PER_HOUR = 100 * 10**6
"""What the growth's whole interval has to lie below: 1.5 kB for each of the inputs that two busy cores take."""
MAX_BYTES = 350 * 10**6
LEAST_ROUNDS = 40
SETTINGS = """
[http]
header_timeout_s = 2.0  # short, so that slow senders are done with soon
body_timeout_s = 2.0
keep_alive_s = 1
"""


def crowd(side: int, size_px: int) -> bytes:
    """`side` times `side` faces in one photo."""
    picture = Image.new("RGB", (side * size_px, side * size_px))
    for place in range(side * side):
        picture.paste(face(size_px), (place % side * size_px, place // side * size_px))
    return encode(picture, "JPEG")


def good_photos() -> list[bytes]:
    """A round of them: selfies, groups, crowds, and two huge ones."""
    huge = [encode(face(240).resize((4000, 3000)), "JPEG"), encode(face(240).resize((1920, 1080)), "PNG")]
    some = cycle([whole("jpeg", 96), whole("webp", 160), crowd(2, 160), whole("png", 128), crowd(5, 128)])
    return [next(some) for _ in range(GOOD - len(huge))] + huge


async def send_good(photos: list[bytes], doors: Doors) -> set[str]:
    """Each through a door of every protocol, some at once; how they were answered."""
    places, reasons = asyncio.Semaphore(AT_ONCE), set[str]()

    async def send(turn: int, photo: bytes) -> None:
        async with places:
            reasons.update(answer.reason for answer in await doors.picture(photo, (0, 1, 3, 4)[turn % 4]))

    await asyncio.gather(*(send(turn, photo) for turn, photo in enumerate(photos)))
    return reasons


async def test_memory_stays_flat_under_mixed_corrupt_and_huge_inputs(start_gateway, tmp_path):
    settings = tmp_path / "short.toml"
    settings.write_text(SETTINGS)
    served = start_gateway("--config", str(settings))
    photos, readings, faults, sent = good_photos(), [], [], 0
    began_s = time.monotonic()
    async with AsyncExitStack() as stack:
        memory = stack.enter_context(PeakMemory(served.process.pid))
        doors = await stack.enter_async_context(Doors(served.rest, served.grpc, whole("jpeg", 160)))
        for turn in count():
            report = await deliver(sample(DAMAGED, seed=turn), doors)
            faults += report.faults
            assert await send_good(photos, doors) == {ANSWERED}
            sent += report.sent + len(doors.neighbours) + 3 * len(photos)
            doors.neighbours.clear()
            passed_s = time.monotonic() - began_s
            readings.append((passed_s, memory_bytes(served.process.pid)))
            if passed_s > 60 * MINUTES and turn >= LEAST_ROUNDS:
                break
    seconds, held = np.array(readings, dtype=np.float64).T
    found, log = growth(seconds / 3600, held), served.log.read_text()
    at_most = memory.most_bytes
    sys.stdout.write(
        f"\n{sent} inputs in {seconds[-1] / 60:.1f} minutes and {len(readings)} rounds: {held[-1] / 1e6:.0f} MB "
        f"afterwards, {at_most / 1e6:.0f} MB at most, growth in the second half {found.slope / 1e6:.1f} MB an hour "
        f"(95 % interval {found.low / 1e6:.1f} to {found.high / 1e6:.1f})\n"
    )
    sys.stdout.write("".join(f"{fault}\n" for fault in faults))
    assert not faults
    assert served.process.poll() is None
    assert "Traceback" not in log
    assert " ERROR " not in log
    assert at_most < MAX_BYTES
    assert found.high < FLAT_BELOW_BYTES_PER_HOUR
