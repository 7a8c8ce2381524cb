"""A face's question: what does its top expression rest on?"""

from ferserve.serving.analysis.stages import Call, Stages, all_outcomes, submitted
from ferserve.serving.answers import occlusion_answer
from ferserve.serving.preparer import OcclusionWork, PhotoWork
from ferserve.serving.requests import AnalyzeOptions, OcclusionAnalysis, OcclusionQuestion


async def analyze_occlusion(
    stages: Stages, call: Call, data: bytes, options: AnalyzeOptions, question: OcclusionQuestion
) -> OcclusionAnalysis:
    """Score one face of an encoded picture again and again, each time with another part covered."""
    forecast = stages.forecast(call, faces=question.faces)
    photo_work = PhotoWork(data=data, options=options, spec=call.model.spec)
    with (
        call.model.in_use(call.flow, call.priority),
        stages.admission.admit_crops(
            size_bytes=len(data), priority=call.priority, forecast=forecast, faces=question.faces
        ),
    ):
        prepared = await stages.prepared(OcclusionWork(photo=photo_work, question=question), call)
        outcomes = await all_outcomes(submitted(prepared.value.crops, call))
    waits = stages.waits(call, turn_s=prepared.queued_s)
    answer = occlusion_answer(prepared.value, outcomes, model=call.model.info, waits=waits)
    photo = prepared.value.photo
    stages.answered(
        answer.timings,
        faces=question.faces,
        decode_s=photo.decode_s,
        detect_s=photo.detect_s,
        preprocess_s=photo.preprocess_s,
    )
    return answer
