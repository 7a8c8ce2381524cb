"""Starts where photos are prepared, as the settings say."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Final

import numpy as np

from ferserve.faces.decode import DecodeLimits
from ferserve.faces.detectors import Detector, load_detector
from ferserve.serving.analyzer_config import AnalyzerConfig
from ferserve.serving.cores import stand_back
from ferserve.serving.preparers.messages import PreparerSettings
from ferserve.serving.preparers.nursery import Nursery
from ferserve.serving.preparers.origin import Origin
from ferserve.serving.preparers.processes import PreparersObserver, ProcessSite
from ferserve.serving.preparers.protocol import PreparationSite
from ferserve.serving.preparers.threads import thread_site

WARM_UP_PX: Final = 64


@asynccontextmanager
async def running_site(
    config: AnalyzerConfig,
    *,
    detector: str,
    limits: DecodeLimits,
    observer: PreparersObserver,
    clock: Callable[[], float],
    origin: Origin | None = None,
) -> AsyncIterator[PreparationSite]:
    """A site that has searched a picture for real, until the block ends.

    Args:
        detector: as `load_detector` takes it.
        clock: seconds, rising; with processes the system's own, which is the same in all of them.
        origin: what processes are forked from, where that was forked already; ended here in any case.
    Raises:
        FerserveError: the detector does not run, or a process.
    """
    turn_s = config.turn_ms / 1000
    if config.preparation == "processes":
        settings = PreparerSettings(
            detector=detector, limits=limits, max_decode_bytes=config.max_decode_bytes, turn_s=turn_s
        )
        site = await ProcessSite.start(Nursery(settings, origin=origin), slots=config.threads, observer=observer)
        try:
            yield site
        finally:
            await site.close()
        return
    if origin is not None:
        await asyncio.to_thread(origin.close)
    loaded = load_detector(detector)
    threads = ThreadPoolExecutor(config.threads, thread_name_prefix="prepare", initializer=stand_back)
    try:
        await asyncio.to_thread(warm_up, loaded, threads, config.threads)
        yield thread_site(threads, loaded, config, limits=limits, clock=clock)
    finally:
        threads.shutdown(wait=False, cancel_futures=True)


def warm_up(detector: Detector, threads: ThreadPoolExecutor, count: int) -> None:
    """Let every thread detect once: what a detector loads at its first call would hold up the first requests."""
    all_there = threading.Barrier(count)  # or one thread would do it all

    def detect() -> None:
        all_there.wait()
        detector.detect(np.zeros((WARM_UP_PX, WARM_UP_PX, 3), dtype=np.uint8))

    for done in [threads.submit(detect) for _ in range(count)]:
        done.result()
