"""What turns pictures into answers, wherever it runs."""

import asyncio
from dataclasses import dataclass
from typing import Protocol

from ferserve.serving.bulk.crops import CropWriter, rows_with_crops
from ferserve.serving.bulk.feed import Content
from ferserve.serving.bulk.manifest import Settings
from ferserve.serving.bulk.rows import Row
from ferserve.serving.requests import AnalyzeOptions, ImageAnalysis, ModelRef


class Scorer(Protocol):
    """Turns pictures into rows, so many at once as its `Scoring` says."""

    async def rows(self, content: Content) -> list[Row]:
        """The rows of an encoded picture, without a path; one error row where nothing can be said of it.

        Raises:
            FerserveError: no picture can be scored any more; the run ends.
        """
        ...


class Analyst(Protocol):
    """Answers pictures one by one, elsewhere."""

    async def score(self, data: bytes) -> ImageAnalysis | Exception:
        """What is in an encoded picture, or why nothing can be said of it.

        Raises:
            FerserveError: no picture can be scored any more; the run ends.
        """
        ...


class AnalystScorer:
    """Turns an analyst's answers into rows, and cuts out the faces' crops here.

    Args:
        crops: writes them; None writes none.
    """

    def __init__(self, analyst: Analyst, *, crops: CropWriter | None) -> None:
        self._analyst = analyst
        self._crops = crops

    async def rows(self, content: Content) -> list[Row]:
        """The rows of an encoded picture, without a path."""
        outcome = await self._analyst.score(content.data)
        if self._crops is None:
            return rows_with_crops(content, outcome, None)
        return await asyncio.to_thread(rows_with_crops, content, outcome, self._crops)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scoring:
    """A scorer that runs, and what its answers depend on.

    Attributes:
        concurrency: pictures that it takes at once, at least 1.
        max_image_bytes: no more of a picture than one byte over this has to be read.
    """

    scorer: Scorer
    settings: Settings
    concurrency: int
    max_image_bytes: int


def scoring_settings(
    model: ModelRef, options: AnalyzeOptions, *, detector: str, detector_sha256: str | None
) -> Settings:
    """The settings that decide what rows hold.

    Args:
        detector_sha256: of the detector's file; None where there is none, or where a gateway does not tell.
    """
    return {
        "model": model.name,
        "archive_sha256": model.archive_sha256,
        "preprocess_sha256": model.preprocess_sha256,
        "precision": model.precision,
        "detector": detector,
        "detector_sha256": detector_sha256,
        "detection_size_px": options.detection_size_px,
        "exact": options.exact,
        "max_faces": options.max_faces,
    }
