"""Many pictures through one analyzer: so many at once, read as there is room, answered in order."""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ferserve.faces.errors import FerserveError, InvalidImageError
from ferserve.serving.analyzer import Analyzer
from ferserve.serving.requests import AnalyzeOptions, ImageAnalysis, RequestContext

logger = logging.getLogger(__name__)
PICTURE_TIMEOUT_S: Final = 600.0
"""Nobody waits for a folder's picture, so this only bounds one that never ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredPicture:
    """One picture and what became of it."""

    path: Path
    outcome: ImageAnalysis | Exception


async def score_pictures(
    analyzer: Analyzer, paths: Iterable[Path], options: AnalyzeOptions, *, concurrency: int, max_image_bytes: int
) -> AsyncIterator[ScoredPicture]:
    """Score pictures in the order of `paths`.

    At most `concurrency` pictures are held at a time, whichever is slow, so memory is bounded however many there are.

    Args:
        paths: read lazily.
        concurrency: pictures in the works at once, 1 or more.
        max_image_bytes: no more of a file than one byte over this is read; the analyzer refuses it then.
    """
    running: deque[tuple[Path, asyncio.Task[ImageAnalysis | Exception]]] = deque()
    try:
        for number, path in enumerate(paths):
            if len(running) == concurrency:
                yield await _next(running)
            work = _score(analyzer, path, options, f"bulk-{number}", max_image_bytes)
            running.append((path, asyncio.create_task(work)))
        while running:
            yield await _next(running)
    finally:
        for _, task in running:
            task.cancel()


async def _next(running: deque[tuple[Path, asyncio.Task[ImageAnalysis | Exception]]]) -> ScoredPicture:
    path, task = running[0]
    outcome = await task
    running.popleft()
    return ScoredPicture(path=path, outcome=outcome)


async def _score(
    analyzer: Analyzer, path: Path, options: AnalyzeOptions, request_id: str, max_image_bytes: int
) -> ImageAnalysis | Exception:
    try:
        data = await asyncio.to_thread(_read, path, max_image_bytes + 1)
    except OSError as error:
        return InvalidImageError(f"the file cannot be read: {error.strerror}")
    deadline_s = asyncio.get_running_loop().time() + PICTURE_TIMEOUT_S
    try:
        return await analyzer.analyze(data, options, RequestContext(request_id=request_id, deadline_s=deadline_s))
    except FerserveError as error:
        return error
    except Exception as error:  # one picture must not end a run of a million
        logger.exception("picture failed", extra={"request_id": request_id})
        return error


def _read(path: Path, limit_bytes: int) -> bytes:
    with path.open("rb") as file:
        return file.read(limit_bytes)
