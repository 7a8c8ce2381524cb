"""Questions about faces that are cut out already: as encoded pictures, or as one tensor."""

import asyncio
from collections.abc import Sequence

import numpy as np

from ferserve.faces.errors import FerserveError
from ferserve.faces.labels import EXPRESSIONS
from ferserve.serving.admission import Forecast
from ferserve.serving.analysis.stages import Call, Stages, all_outcomes, face_counts, submitted
from ferserve.serving.answers import crops_answer, tensor_answer
from ferserve.serving.batcher import FaceOutcome
from ferserve.serving.preparer import CropsWork
from ferserve.serving.requests import CropScores, FacesClassification
from ferserve.serving.workers.protocol import CropBatch


async def classify_crops(stages: Stages, call: Call, faces: Sequence[bytes]) -> FacesClassification:
    """Score encoded pictures of one face each; a bad one is an error in its place."""
    forecast = stages.forecast(call, faces=len(faces))
    size_bytes = sum(map(len, faces))
    with (
        call.model.in_use(call.flow, call.priority),
        stages.admission.admit_crops(
            size_bytes=size_bytes, priority=call.priority, forecast=forecast, faces=len(faces)
        ),
    ):
        prepared = await stages.prepared(CropsWork(faces=tuple(faces), spec=call.model.spec), call)
        crops = [item for item in prepared.value.items if not isinstance(item, FerserveError)]
        results = await asyncio.gather(*submitted(crops, call), return_exceptions=True)
    waits = stages.waits(call, turn_s=prepared.queued_s)
    answer = crops_answer(prepared.value, _foreseen(results), model=call.model.info, waits=waits)
    scored = [item for item in answer.items if not isinstance(item, FerserveError)]
    stages.answered(
        answer.timings,
        faces=max(len(scored), 1),
        decode_s=prepared.value.decode_s,
        preprocess_s=prepared.value.preprocess_s,
    )
    stages.observe_forecast(forecast, waits)
    stages.observer.faces_scored(call.model.info.name, **face_counts(scored))
    return answer


async def score_crops(stages: Stages, call: Call, crops: CropBatch) -> CropScores:
    """Score crops that are as the model takes them: uint8, shape (N, S, S, C), N at least 1."""
    model = call.model
    scored_s = model.batcher.expected_s(len(crops), flow=call.flow, priority=call.priority)
    with (
        model.in_use(call.flow, call.priority),
        stages.admission.admit_crops(
            size_bytes=crops.nbytes,
            priority=call.priority,
            forecast=Forecast(needed_s=scored_s, left_s=call.deadline_s - call.began_s),
            faces=len(crops),
        ),
    ):
        outcomes = await all_outcomes(submitted(list(crops), call))
    answer = tensor_answer(outcomes, model=model.info, waits=stages.waits(call, turn_s=0.0))
    stages.answered(answer.timings, faces=len(crops))
    tops = [EXPRESSIONS[place] for place in answer.scores.argmax(axis=1).tolist()]
    uncertain = int(np.count_nonzero(answer.scores.max(axis=1) < model.info.uncertain_below))
    stages.observer.faces_scored(model.info.name, tops=tops, uncertain=uncertain)
    return answer


def _foreseen(results: Sequence[FaceOutcome | BaseException]) -> list[FaceOutcome | FerserveError]:
    """The results, unless one of them is a fault of the program: that is nobody's item, it fails the call."""
    foreseen: list[FaceOutcome | FerserveError] = []
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, FerserveError):
            raise result
        foreseen.append(result)
    return foreseen
