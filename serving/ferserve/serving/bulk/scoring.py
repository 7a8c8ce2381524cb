"""What turns pictures into answers, wherever it runs."""

from dataclasses import dataclass
from typing import Protocol

from ferserve.serving.bulk.manifest import Settings
from ferserve.serving.requests import AnalyzeOptions, ImageAnalysis, ModelRef


class Scorer(Protocol):
    """Answers pictures, so many at once as its `Scoring` says."""

    async def score(self, data: bytes) -> ImageAnalysis | Exception:
        """What is in an encoded picture, or why nothing can be said of it.

        Raises:
            FerserveError: no picture can be scored any more; the run ends.
        """
        ...


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
