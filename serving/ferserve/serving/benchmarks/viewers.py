"""Live streams side by side over real WebSockets: how many frames each viewer sees a second, how old, and how fairly.

Every viewer sends frames at one rate, as a camera does, and waits for nothing; the gateway keeps each one's newest.
"""

import asyncio
import json
import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from ferserve.serving.benchmarks.gateways import OwnGateway
from ferserve.serving.benchmarks.stages import describe_machine
from ferserve.serving.errors import StartError

WARM_UP_S: Final = 2.0
"""Frames answered before it do not count."""
ID_BYTES: Final = 8
OPEN_TIMEOUT_S: Final = 30.0
OPTIONS: Final = "mode=live&tracks=true&smoothing=0.6"
"""What the page asks for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewersReport:
    """What so many viewers saw.

    Attributes:
        rate: frames that each sent a second.
        faces: in a frame.
        frames_s: frames that each saw a second, in rising order.
        jain: fairness of `frames_s`, from 1 over their number (one has all) to 1 (all have the same).
        dropped: share of the frames sent that were given up for newer ones.
        failed: answers that were errors.
        median_ms, p99_ms: from a frame's sending to its answer; not a number without one.
        gateway_cpu: cores' worth of CPU time that the gateway took.
    """

    machine: dict[str, str | int | float]
    viewers: int
    rate: float
    faces: int
    seconds: float
    frames_s: tuple[float, ...]
    jain: float
    dropped: float
    failed: int
    median_ms: float
    p99_ms: float
    gateway_cpu: float


@dataclass(slots=True)
class _Seen:
    """One viewer's answers after the warm-up."""

    ages_ms: list[float] = field(default_factory=list)
    sent: int = 0
    dropped: int = 0
    failed: int = 0


async def measure_viewers(
    gateway: OwnGateway, frame: bytes, *, faces: int, viewers: int, rate: float, seconds: float
) -> ViewersReport:
    """Let viewers look on for `WARM_UP_S` and then for `seconds`.

    Args:
        frame: an encoded picture, sent again and again.
        faces: in it, for the report.
        rate: frames a second and viewer.
    Raises:
        StartError: a stream could not be opened, or was ended by the gateway.
    """
    machine = describe_machine()
    address = f"ws://{gateway.rest}/v1/stream?{OPTIONS}"
    begin_s = time.perf_counter() + WARM_UP_S
    views = [_view(address, frame, rate, begin_s, seconds, offset=place / viewers) for place in range(viewers)]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(view) for view in views]
            cpu = group.create_task(_cpu_of(gateway, begin_s, seconds))
    except* (OSError, WebSocketException, StartError) as errors:
        raise StartError(f"a stream ended before its time: {errors.exceptions[0]}") from errors
    seen = [task.result() for task in tasks]
    ages_ms = sorted(age_ms for one in seen for age_ms in one.ages_ms)
    frames_s = sorted(len(one.ages_ms) / seconds for one in seen)
    return ViewersReport(
        machine=machine,
        viewers=viewers,
        rate=rate,
        faces=faces,
        seconds=seconds,
        frames_s=tuple(frames_s),
        jain=jain_index(frames_s),
        dropped=sum(one.dropped for one in seen) / max(sum(one.sent for one in seen), 1),
        failed=sum(one.failed for one in seen),
        median_ms=statistics.median(ages_ms) if ages_ms else math.nan,
        p99_ms=ages_ms[math.ceil(0.99 * len(ages_ms)) - 1] if ages_ms else math.nan,
        gateway_cpu=cpu.result(),
    )


def jain_index(shares: Sequence[float]) -> float:
    """(sum of x)^2 / (n * sum of x^2): 1 where all are equal, 1 / n where one has all. Source: Jain et al. 1984."""
    squares = sum(share * share for share in shares)
    return sum(shares) ** 2 / (len(shares) * squares) if squares else 1.0


async def _cpu_of(gateway: OwnGateway, begin_s: float, seconds: float) -> float:
    await asyncio.sleep(begin_s - time.perf_counter())
    before_s = gateway.cpu_s()
    await asyncio.sleep(seconds)
    return (gateway.cpu_s() - before_s) / seconds


async def _view(address: str, frame: bytes, rate: float, begin_s: float, seconds: float, *, offset: float) -> _Seen:
    """One viewer, whose frames lie `offset` of an interval after the first viewer's."""
    seen, sent_s = _Seen(), dict[str, float]()
    async with connect(address, open_timeout=OPEN_TIMEOUT_S, compression=None) as socket:
        sending = asyncio.create_task(_send(socket, frame, rate, begin_s + seconds, offset / rate, sent_s))
        try:
            async with asyncio.timeout(begin_s + seconds - time.perf_counter()):
                async for message in socket:
                    _note(json.loads(message), seen, sent_s, begin_s)
        except TimeoutError:
            pass
        finally:
            sending.cancel()
    seen.sent = sum(at_s >= begin_s for at_s in sent_s.values())
    return seen


async def _send(
    socket: ClientConnection, frame: bytes, rate: float, end_s: float, offset_s: float, sent_s: dict[str, float]
) -> None:
    due_s = time.perf_counter() + offset_s
    number = 0
    while due_s < end_s:
        await asyncio.sleep(max(due_s - time.perf_counter(), 0))
        sent_s[str(number)] = time.perf_counter()
        await socket.send(number.to_bytes(ID_BYTES, "big") + frame)
        number += 1
        due_s += 1 / rate


def _note(reply: dict[str, Any], seen: _Seen, sent_s: dict[str, float], begin_s: float) -> None:
    now_s = time.perf_counter()
    if "id" not in reply:
        raise StartError(f"the gateway ended a stream: {reply['error']['message']}")
    if now_s < begin_s:
        return
    seen.dropped += reply["dropped_frames"]
    if "error" in reply:
        seen.failed += 1
    else:
        seen.ages_ms.append((now_s - sent_s[reply["id"]]) * 1000)
