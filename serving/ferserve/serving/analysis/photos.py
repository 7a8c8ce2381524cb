"""A photo's question: which faces are in it, and what do they show?"""

from ferserve.faces.wire import PhotoOptions
from ferserve.serving.admission import Forecast
from ferserve.serving.analysis.stages import Call, Stages, all_outcomes, face_counts, submitted
from ferserve.serving.answers import photo_answer, remote_answer
from ferserve.serving.preparer import PhotoWork
from ferserve.serving.remote_photos import RemotePhotos
from ferserve.serving.requests import AnalyzeOptions, ImageAnalysis


async def analyze_photo(
    stages: Stages, call: Call, data: bytes, options: AnalyzeOptions, *, detector: str
) -> ImageAnalysis:
    """Find and score the faces of one encoded picture, here or where the model's workers do all of it.

    Args:
        detector: the name of the one that searches here.
    """
    if call.model.photos is not None:
        with call.model.in_use(call.flow, call.priority):
            answer, skipped = await _there(stages, call, data, options, photos=call.model.photos)
    else:
        answer, skipped = await _here(stages, call, data, options, detector=detector)
    stages.observer.faces_skipped(skipped)
    stages.observer.image_scored(call.model.info.name, **face_counts(answer.faces))
    return answer


async def _here(
    stages: Stages, call: Call, data: bytes, options: AnalyzeOptions, *, detector: str
) -> tuple[ImageAnalysis, int]:
    """The answer, and how many detections gave no crop."""
    model = call.model
    stages.admission.check_room(call.priority, left_s=call.deadline_s - call.began_s)  # before a forecast
    forecast = stages.forecast(call, faces=stages.admission.expected_faces)
    with (
        model.in_use(call.flow, call.priority),
        stages.admission.admit(
            size_bytes=len(data), priority=call.priority, forecast=forecast, max_faces=options.max_faces
        ) as ticket,
    ):
        prepared = await stages.prepared(PhotoWork(data=data, options=options, spec=model.spec), call)
        photo = prepared.value
        ticket.reconcile(found=photo.found, kept=len(photo.faces))
        outcomes = await all_outcomes(submitted([face.crop for face in photo.faces], call))
    waits = stages.waits(call, turn_s=prepared.queued_s)
    answer = photo_answer(photo, outcomes, model=model.info, detector=detector, waits=waits)
    stages.answered(
        answer.timings,
        faces=max(len(answer.faces), 1),
        decode_s=photo.decode_s,
        detect_s=photo.detect_s,
        preprocess_s=photo.preprocess_s,
    )
    stages.observe_forecast(forecast, waits)
    return answer, photo.skipped


async def _there(
    stages: Stages, call: Call, data: bytes, options: AnalyzeOptions, *, photos: RemotePhotos
) -> tuple[ImageAnalysis, int]:
    """Photo mode: a worker does all of it."""
    needed_s = photos.expected_s(flow=call.flow, priority=call.priority)
    asked = PhotoOptions(detection_size_px=options.detection_size_px, exact=options.exact, max_faces=options.max_faces)
    with stages.admission.admit(
        size_bytes=len(data),
        priority=call.priority,
        forecast=Forecast(needed_s=needed_s, left_s=call.deadline_s - call.began_s),
        max_faces=options.max_faces,
    ) as ticket:
        outcome = await photos.run(data, asked, flow=call.flow, priority=call.priority, deadline_s=call.deadline_s)
        photo = outcome.value
        ticket.reconcile(found=photo.found, kept=len(photo.faces))
    total_s = stages.waits(call, turn_s=0.0).total_s
    answer = remote_answer(outcome, model=call.model.info, total_s=total_s)
    stages.answered(
        answer.timings,
        faces=max(len(answer.faces), 1),
        decode_s=photo.decode_s,
        detect_s=photo.detect_s,
        preprocess_s=photo.preprocess_s,
    )
    return answer, photo.skipped
