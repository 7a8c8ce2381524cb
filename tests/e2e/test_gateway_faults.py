"""Two gateways behind a real Envoy: one is killed, the network is slow, both are restarted in turns.

Callers use ferserve's own client. Every photo gets exactly one answer, in time. Each test tells its figures.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count, pairwise

import cv2
import httpx
import pytest
import skimage.data
from tests.e2e.proxies import free_port, until

from ferserve.faces.errors import FerserveError
from ferserve.serving.client import AsyncClient, ClientConfig
from ferserve.serving.errors import DeadlineError
from ferserve.serving.requests import ImageAnalysis

pytestmark = [pytest.mark.e2e, pytest.mark.long]
CALLERS, FRAMES_AT_ONCE = 3, 4
DEADLINE_S = 30.0
"""Of each photo; generous, because a machine that starts a gateway on its two cores answers slowly meanwhile."""
STEADY = 50
RECOVERY_S = 120.0
RESTARTS = 20
CONFIG = ClientConfig(timeout_s=DEADLINE_S, max_attempts=20)


@pytest.fixture(scope="module")
def photo() -> bytes:
    small = cv2.resize(skimage.data.astronaut()[:, :, ::-1], (160, 160), interpolation=cv2.INTER_AREA)
    return cv2.imencode(".jpg", small)[1].tobytes()


class Photos:
    """Photos that are asked about, by calls and by frames of one stream, until told to stop; and what came of them."""

    def __init__(self, target: str, photo: bytes) -> None:
        self._target, self._photo = target, photo
        self._stopped = False
        self._more = asyncio.Event()
        self.took_s: list[float] = []
        self.answered_s: list[float] = []
        self.failed: Counter[str] = Counter()
        self.sent: dict[int, float] = {}
        self.replies: Counter[int] = Counter()

    async def call(self) -> None:
        async with AsyncClient(self._target, CONFIG) as client:
            while not self._stopped:
                began_s = time.monotonic()
                try:
                    outcome: object = await client.analyze(self._photo)
                except FerserveError as error:
                    outcome = error
                self._ended(outcome, began_s)

    async def stream(self) -> None:
        room = asyncio.Semaphore(FRAMES_AT_ONCE)

        async def frames() -> AsyncIterator[tuple[int, bytes]]:
            for number in count():
                await room.acquire()
                if self._stopped:
                    return
                self.sent[number] = time.monotonic()
                yield number, self._photo

        async with AsyncClient(self._target, CONFIG) as client:
            async for reply in client.stream(frames(), frame_timeout_s=DEADLINE_S):
                self.replies[reply.id] += 1
                self._ended(reply.outcome, self.sent[reply.id])
                room.release()

    async def more(self, answers: int = STEADY) -> None:
        """Wait for so many more answers."""
        wanted = len(self.took_s) + answers
        async with asyncio.timeout(RECOVERY_S):
            while len(self.took_s) < wanted:
                self._more.clear()
                await self._more.wait()

    def stop(self) -> None:
        self._stopped = True

    def longest_silence_s(self, since_s: float) -> float:
        """Longest time without any answer."""
        times = [since_s, *(at for at in self.answered_s if at > since_s)]
        return max(after - before for before, after in pairwise(times))

    def check(self) -> None:
        assert not self.failed
        assert self.replies == dict.fromkeys(self.sent, 1)
        assert max(self.took_s) < DEADLINE_S

    def _ended(self, outcome: object, began_s: float) -> None:
        if not isinstance(outcome, ImageAnalysis):
            self.failed[str(outcome)] += 1
        elif len(outcome.faces) != 1:
            self.failed[f"{len(outcome.faces)} faces"] += 1
        self.answered_s.append(time.monotonic())
        self.took_s.append(self.answered_s[-1] - began_s)
        self._more.set()


@asynccontextmanager
async def asked_about(target: str, photo: bytes) -> AsyncIterator[Photos]:
    photos = Photos(target, photo)
    async with asyncio.TaskGroup() as group:
        for _ in range(CALLERS):
            group.create_task(photos.call())
        group.create_task(photos.stream())
        yield photos
        photos.stop()


class Pair:
    """Two gateways on ports that stay."""

    def __init__(self, start_gateway: Callable, archive: object) -> None:
        self._start = start_gateway
        ports = [(free_port(), free_port()) for _ in range(2)]
        self.grpc_ports = [grpc for grpc, _ in ports]
        self._flags = [
            (f"--model={archive}", f"--grpc-port={grpc}", f"--admin-port={admin}", "--threads=1")
            for grpc, admin in ports
        ]
        self.running = [start_gateway(*flags) for flags in self._flags]

    async def start(self, index: int) -> None:
        self.running[index] = await asyncio.to_thread(self._start, *self._flags[index])

    async def takes_part(self, index: int) -> float:
        """Wait until it has answered something; after how many seconds."""
        return await asyncio.to_thread(until, self._answered(index), RECOVERY_S, "it answers")

    def _answered(self, index: int) -> Callable[[], bool]:
        metrics = f"{self.running[index].admin}/metrics"
        return lambda: 'requests_total{code="OK",method="Analyze"' in httpx.get(metrics).text


@pytest.fixture(scope="module")
def pair(start_gateway, tiny_archive) -> Pair:
    return Pair(start_gateway, tiny_archive)


async def test_of_two_gateways_one_is_killed_and_no_photo_is_lost(pair, start_envoy, photo, tell):
    envoy = start_envoy(pair.grpc_ports)
    envoy.wait_until_ready()
    async with asked_about(envoy.target, photo) as photos:
        await photos.more()
        pair.running[0].process.kill()
        killed_s = time.monotonic()
        await photos.more()
        await pair.start(0)
        back_s = await pair.takes_part(0)
        await photos.more()
    silence_s = photos.longest_silence_s(killed_s)
    tell(
        f"gateway killed: {len(photos.took_s)} answers, longest silence {silence_s:.2f} s, slowest "
        f"{max(photos.took_s):.1f} s; used {back_s:.1f} s after its restart"
    )
    photos.check()


async def test_gateways_are_restarted_in_turns_and_no_photo_is_lost(pair, start_envoy, photo, tell):
    envoy = start_envoy(pair.grpc_ports, health_every_s=1)
    envoy.wait_until_ready()
    backs_s = []
    async with asked_about(envoy.target, photo) as photos:
        await photos.more()
        began_s = time.monotonic()
        for turn in range(RESTARTS):
            index = turn % 2
            assert await asyncio.to_thread(pair.running[index].stop) == 0
            await pair.start(index)
            backs_s.append(await pair.takes_part(index))
    tell(
        f"{RESTARTS} rolling restarts: {len(photos.took_s)} answers, longest silence "
        f"{photos.longest_silence_s(began_s):.2f} s, slowest {max(photos.took_s):.1f} s; used "
        f"{sum(backs_s) / len(backs_s):.1f} s after a start, at most {max(backs_s):.1f}"
    )
    photos.check()


async def test_over_a_slow_network_a_killed_gateway_costs_no_photo(pair, start_envoy, photo, tell):
    delay_s = 1.0
    faults = {
        "delay": {"fixed_delay": f"{delay_s}s", "percentage": {"numerator": 50}},
        "response_rate_limit": {"fixed_limit": {"limit_kbps": 8}, "percentage": {"numerator": 50}},
    }
    envoy = start_envoy(pair.grpc_ports, faults=faults)
    envoy.wait_until_ready()
    async with asked_about(envoy.target, photo) as photos:
        await photos.more()
        pair.running[1].process.kill()
        killed_s = time.monotonic()
        await photos.more()
        await pair.start(1)
        await pair.takes_part(1)
    silence_s = photos.longest_silence_s(killed_s)
    delayed = sum(took_s > delay_s for took_s in photos.took_s)
    tell(
        f"slow network, gateway killed: {len(photos.took_s)} answers, {delayed} later than {delay_s} s, slowest "
        f"{max(photos.took_s):.1f} s, longest silence {silence_s:.2f} s"
    )
    assert delayed
    photos.check()


async def test_over_a_slow_network_a_short_deadline_is_kept_by_the_client(pair, start_envoy, photo, tell):
    envoy = start_envoy(pair.grpc_ports, faults={"delay": {"fixed_delay": "5s", "percentage": {"numerator": 100}}})
    envoy.wait_until_ready()
    async with AsyncClient(envoy.target, CONFIG) as client:
        began_s = time.monotonic()
        with pytest.raises(DeadlineError):
            await client.analyze(photo, timeout_s=0.5)
        took_s = time.monotonic() - began_s
    tell(f"network slower than the deadline of 0.5 s: told after {took_s:.2f} s")
    assert took_s < 2.5
