"""Answers and rows to make tables of."""

import numpy as np

from ferserve.faces.errors import InvalidImageError
from ferserve.faces.types import Box, Detection, Quality, QualityIssue, ScoredFace
from ferserve.serving.bulk.rows import rows_of
from ferserve.serving.bulk.shards import ItemRows
from ferserve.serving.requests import ImageAnalysis, ModelRef, StageTimings

SCORES = np.array([0.1, 0.0, 0.1, 0.5, 0.1, 0.1, 0.1], dtype=np.float32)
MODEL = ModelRef(name="m", version="1", archive_sha256="a" * 64, preprocess_sha256="b" * 64, precision="int8")


def face(*, landmarks: bool = True, scores=SCORES, uncertain: bool = True) -> ScoredFace:
    return ScoredFace(
        detection=Detection(
            box=Box(x0=1.5, y0=2.5, x1=31.5, y1=42.5),
            score=0.9,
            landmarks=np.arange(10, dtype=np.float32).reshape(5, 2) if landmarks else None,
        ),
        scores=scores,
        uncertain=uncertain,
        quality=Quality(
            size_px=30.0,
            sharpness=12.0,
            yaw=0.25 if landmarks else None,
            roll_deg=-3.0 if landmarks else None,
            issues=(QualityIssue.SMALL, QualityIssue.BLURRED),
        ),
    )


def analysis(*faces: ScoredFace) -> ImageAnalysis:
    return ImageAnalysis(width_px=64, height_px=48, faces=faces, detector="haar", model=MODEL, timings=StageTimings())


def failed() -> InvalidImageError:
    return InvalidImageError("expected a picture, got 3 bytes")


def item(item_id: bytes, path: str, outcome, content: bytes | None = None) -> ItemRows:
    return ItemRows(item_id=item_id, rows=rows_of(path, outcome, content=content))
