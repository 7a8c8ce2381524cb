"""Puts answers together from what the stages gave: pure, no clock and no waiting."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ferserve.faces.errors import FerserveError
from ferserve.faces.occlusion import occlusion_map
from ferserve.faces.photos import PreparedFace
from ferserve.faces.types import ScoredFace, Scores
from ferserve.faces.wire import ScoredPhoto
from ferserve.serving.batcher import FaceOutcome
from ferserve.serving.outcomes import Outcome
from ferserve.serving.preparer import PreparedCrops, PreparedOcclusion, PreparedPhoto
from ferserve.serving.requests import (
    CropScores,
    FaceClassification,
    FacesClassification,
    ImageAnalysis,
    ModelInfo,
    OcclusionAnalysis,
    StageTimings,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """What the stages themselves do not know of a request's time.

    Attributes:
        turn_s: waited for a thread.
        total_s: from the call to its answer.
    """

    turn_s: float
    total_s: float


def photo_answer(
    photo: PreparedPhoto, outcomes: Sequence[FaceOutcome], *, model: ModelInfo, detector: str, waits: Waits
) -> ImageAnalysis:
    """The answer for one photo; `outcomes` in the order of `photo.faces`."""
    faces = tuple(_scored(face, outcome, model) for face, outcome in zip(photo.faces, outcomes, strict=True))
    return ImageAnalysis(
        width_px=photo.width_px,
        height_px=photo.height_px,
        faces=faces,
        detector=detector,
        model=model,
        timings=_timings(
            outcomes, waits, decode_s=photo.decode_s, detect_s=photo.detect_s, preprocess_s=photo.preprocess_s
        ),
    )


def occlusion_answer(
    prepared: PreparedOcclusion, outcomes: Sequence[FaceOutcome], *, model: ModelInfo, waits: Waits
) -> OcclusionAnalysis:
    """The answer for one face; `outcomes` in the order of `prepared.crops`."""
    photo, uncovered = prepared.photo, outcomes[0]
    return OcclusionAnalysis(
        width_px=photo.width_px,
        height_px=photo.height_px,
        face=_scored(prepared.face, uncovered, model),
        square=prepared.face.square,
        drops=occlusion_map(uncovered.value, np.stack([outcome.value for outcome in outcomes[1:]])),
        model=model,
        timings=_timings(
            outcomes, waits, decode_s=photo.decode_s, detect_s=photo.detect_s, preprocess_s=photo.preprocess_s
        ),
    )


def remote_answer(outcome: Outcome[ScoredPhoto], *, model: ModelInfo, total_s: float) -> ImageAnalysis:
    """The answer for a photo that a worker searched and scored."""
    photo = outcome.value
    return ImageAnalysis(
        width_px=photo.width_px,
        height_px=photo.height_px,
        faces=photo.faces,
        detector=photo.detector,
        model=model,
        timings=StageTimings(
            decode_ms=photo.decode_s * 1000,
            detect_ms=photo.detect_s * 1000,
            preprocess_ms=photo.preprocess_s * 1000,
            queue_ms=outcome.queued_s * 1000,
            infer_ms=photo.infer_s * 1000,
            total_ms=total_s * 1000,
        ),
    )


def crops_answer(
    prepared: PreparedCrops, results: Sequence[FaceOutcome | FerserveError], *, model: ModelInfo, waits: Waits
) -> FacesClassification:
    """The answer for crops; `results` in the order of the usable ones among `prepared.items`."""
    left = iter(results)
    items: list[FaceClassification | FerserveError] = []
    for crop in prepared.items:
        result = crop if isinstance(crop, FerserveError) else next(left)
        if isinstance(result, FerserveError):
            items.append(result)
        else:
            items.append(FaceClassification(scores=result.value, uncertain=_is_uncertain(result.value, model)))
    outcomes = [result for result in results if not isinstance(result, FerserveError)]
    timings = _timings(outcomes, waits, decode_s=prepared.decode_s, detect_s=0.0, preprocess_s=prepared.preprocess_s)
    return FacesClassification(items=tuple(items), model=model, timings=timings)


def tensor_answer(outcomes: Sequence[FaceOutcome], *, model: ModelInfo, waits: Waits) -> CropScores:
    """The answer for crops that came as one tensor; at least one."""
    return CropScores(
        scores=np.stack([outcome.value for outcome in outcomes]),
        model=model,
        timings=_timings(outcomes, waits, decode_s=0.0, detect_s=0.0, preprocess_s=0.0),
    )


def _scored(face: PreparedFace, outcome: FaceOutcome, model: ModelInfo) -> ScoredFace:
    return ScoredFace(
        detection=face.detection,
        scores=outcome.value,
        uncertain=_is_uncertain(outcome.value, model),
        quality=face.quality,
    )


def _is_uncertain(scores: Scores, model: ModelInfo) -> bool:
    return float(scores.max()) < model.uncertain_below


def _timings(
    outcomes: Sequence[FaceOutcome], waits: Waits, *, decode_s: float, detect_s: float, preprocess_s: float
) -> StageTimings:
    """Stages in milliseconds; of faces scored side by side the last one counts, for it made the caller wait."""
    last = max(outcomes, key=lambda outcome: outcome.queued_s + outcome.run_s, default=None)
    return StageTimings(
        decode_ms=decode_s * 1000,
        detect_ms=detect_s * 1000,
        preprocess_ms=preprocess_s * 1000,
        queue_ms=(waits.turn_s + (last.queued_s if last else 0.0)) * 1000,
        infer_ms=(last.run_s if last else 0.0) * 1000,
        total_ms=waits.total_s * 1000,
    )
