"""How long a run would take, from a random sample of its pictures; nothing is written."""

import asyncio
import math
import random
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass, replace
from itertools import count
from typing import Final

from ferserve.serving.bulk.feed import Content, Feed, read_content
from ferserve.serving.bulk.pipeline import NothingScored, Pipeline
from ferserve.serving.bulk.rows import Row
from ferserve.serving.bulk.run import Tally
from ferserve.serving.bulk.scoring import Scorer, Scoring
from ferserve.serving.bulk.sources import Finder, Item, SourceError

SAMPLE: Final = 48
Z_95: Final = 1.96


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a run would come to.

    Attributes:
        pictures: found in the sources.
        kept: of those, the ones that have rows already, at most.
        sample: what the sampled pictures came to.
        seconds, low_s, high_s: for the pictures that are left, with the 95 % interval that sampling alone gives.
        faces: that those pictures would give.
    """

    pictures: int
    kept: int
    sample: Tally
    seconds: float
    low_s: float
    high_s: float
    faces: int


async def estimate_run(
    finder: Finder,
    scoring: AbstractAsyncContextManager[Scoring],
    *,
    kept: int = 0,
    seed: int = 0,
    clock: Callable[[], float] = time.monotonic,
) -> Estimate:
    """Go through all sources without reading more than a sample, and score that.

    Args:
        kept: pictures that have rows already.
    Raises:
        ConfigError: a source does not exist, or nothing is found.
        ArchiveError, WorkerFailedError: the archive does not run.
    """
    finder.check()
    async with scoring as ready:
        sample, pictures = await asyncio.to_thread(_sampled, finder, random.Random(seed), ready.max_image_bytes)  # noqa: S311 - no secret
        timed = _TimedScorer(ready.scorer, clock)
        tally = await _score(sample, replace(ready, scorer=timed), clock)
    left = max(pictures - kept, 0)
    a_picture_s = tally.seconds / tally.pictures
    # What is sure of a mean of so many draws; the latencies stand for the work, for their share is all that counts.
    spread = Z_95 * _relative_error(timed.latencies_s) * math.sqrt(max(1 - len(sample) / pictures, 0))
    return Estimate(
        pictures=pictures,
        kept=kept,
        sample=tally,
        seconds=left * a_picture_s,
        low_s=left * a_picture_s * max(1 - spread, 0),
        high_s=left * a_picture_s * (1 + spread),
        faces=round(left * tally.faces / tally.pictures),
    )


def _sampled(finder: Finder, rng: random.Random, max_image_bytes: int) -> tuple[list[Item], int]:
    """Every item with the same chance (Vitter 1985, algorithm R), and how many there are."""
    sample: list[Item] = []
    number = 0
    for number, item in enumerate(finder.items(), 1):
        place = number - 1 if number <= SAMPLE else rng.randrange(number)
        if place < SAMPLE:
            sample[place : place + 1] = [_lasting(item, max_image_bytes)]
    return sample, number


def _lasting(item: Item, max_image_bytes: int) -> Item:
    """An item that can be read later."""
    if not item.is_sequential:
        return item
    content = read_content(item, max_image_bytes)

    def read(_limit_bytes: int) -> bytes:
        if isinstance(content, SourceError):
            raise content
        return content.data

    return replace(item, read=read, is_sequential=False)


async def _score(sample: list[Item], scoring: Scoring, clock: Callable[[], float]) -> Tally:
    numbers = count()
    feed = Feed(iter(sample), lambda _identity: next(numbers).to_bytes(16), max_image_bytes=scoring.max_image_bytes)
    tally, began_s = Tally(), clock()
    async with aclosing(Pipeline(scoring, NothingScored()).rows(feed)) as pictures:
        async for scored in pictures:
            tally.count(scored)
    tally.seconds = clock() - began_s
    return tally


def _relative_error(values: list[float]) -> float:
    """Of their mean; nothing is known of fewer than two."""
    if len(values) < 2 or not any(values):
        return 0.0
    return statistics.stdev(values) / statistics.fmean(values) / math.sqrt(len(values))


class _TimedScorer:
    """Notes how long each answer took."""

    def __init__(self, scorer: Scorer, clock: Callable[[], float]) -> None:
        self._scorer = scorer
        self._clock = clock
        self.latencies_s: list[float] = []

    async def rows(self, content: Content) -> list[Row]:
        """As the scorer does."""
        began_s = self._clock()
        try:
            return await self._scorer.rows(content)
        finally:
            self.latencies_s.append(self._clock() - began_s)
