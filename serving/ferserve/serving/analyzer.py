"""The use case, free of any protocol: bytes in, faces with scores out.

A photo's way: admission (refuses before anything costs) → a turn on a thread (decode, detect, crops, quality) → its
reservation is reconciled with the faces found → the model's batcher → answer. A `with` block holds the admission over
all of it, so whichever way a request ends, its place is free again.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Final, TypedDict, TypeVar

import numpy as np

from ferserve.faces.decode import DecodeLimits
from ferserve.faces.detectors import Detector
from ferserve.faces.errors import FerserveError, InvalidRequestError
from ferserve.faces.labels import EXPRESSIONS, Expression
from ferserve.faces.types import Crop, ScoredFace
from ferserve.faces.wire import PhotoOptions
from ferserve.serving.access import OPEN, Gate
from ferserve.serving.admission import Admission, Forecast
from ferserve.serving.analyzer_config import AnalysisObserver, AnalyzerConfig
from ferserve.serving.answers import (
    Waits,
    crops_answer,
    occlusion_answer,
    photo_answer,
    remote_answer,
    tensor_answer,
)
from ferserve.serving.batcher import FaceOutcome
from ferserve.serving.dispatch import Outcome
from ferserve.serving.errors import ModelNotFoundError
from ferserve.serving.health import Health
from ferserve.serving.memory_budget import MemoryBudget
from ferserve.serving.models import LoadedModel
from ferserve.serving.preparation import PreparationStage
from ferserve.serving.preparer import Caller, Preparer, Steps
from ferserve.serving.purposes import Scope
from ferserve.serving.remote_photos import RemotePhotos
from ferserve.serving.requests import (
    AnalyzeOptions,
    CropScores,
    FaceClassification,
    FacesClassification,
    ImageAnalysis,
    ModelInfo,
    OcclusionAnalysis,
    OcclusionQuestion,
    Priority,
    RequestContext,
)
from ferserve.serving.tracing import trace_answer
from ferserve.serving.workers.protocol import CropBatch

ResultT = TypeVar("ResultT")
MAX_DEADLINE_S: Final = 3600.0
"""Longest that a request holds its place, however long its caller would wait."""


class Analyzer:
    """Analyses photos and crops with the loaded models. All calls belong to one event loop.

    Args:
        models: by name; owned by the analyzer from now on. Entries may be replaced while it runs: a request keeps the
            model that it found.
        default: name of the model that an empty name stands for; one of `models`.
        detector: finds the faces; called from several threads at once.
        decode_limits: what pictures are taken.
        admission: bounds what is in flight; nobody else's.
        bulk_share: of the turns on a thread, as in `BatchPolicyConfig`.
        observer: told about every request.
        clock: seconds, rising, at the rate of the event loop's; the one that deadlines are read from.
        executor: at least `config.threads` threads; not shut down here.
        gate: who may ask; everybody unless told otherwise.
    """

    def __init__(
        self,
        models: Mapping[str, LoadedModel],
        default: str,
        *,
        detector: Detector,
        decode_limits: DecodeLimits,
        config: AnalyzerConfig,
        admission: Admission,
        bulk_share: float,
        observer: AnalysisObserver,
        clock: Callable[[], float],
        executor: Executor,
        gate: Gate = OPEN,
    ) -> None:
        if default not in models:
            raise ValueError(f"default must be one of {', '.join(models) or '(no models)'}, got {default}")
        self._models = models
        self._default = default
        self._detector = detector
        self._config = config
        self._admission = admission
        self._observer = observer
        self._gate = gate
        self._clock = clock
        self._preparer = Preparer(detector, decode_limits, clock, max_decode_bytes=config.max_decode_bytes)
        self._stage = PreparationStage(
            executor,
            slots=config.threads,
            bulk_share=bulk_share,
            turn_s=config.turn_ms / 1000,
            memory=MemoryBudget(config.decode_budget_bytes, bulk_share=bulk_share, clock=clock),
            observer=observer.preparation(),
            clock=clock,
        )
        self._calls = Health()  # its own: callers without a gateway, such as bulk scoring, drain it too
        self._calls.ready()

    @property
    def in_flight(self) -> int:
        """Calls accepted and not answered yet."""
        return self._calls.in_flight

    def models(self) -> list[ModelInfo]:
        """The loaded models, the default one first, the others by name."""
        self._gate.admit(Scope.MODELS)
        infos = [model.info for model in self._models.values()]
        return sorted(infos, key=lambda info: (not info.is_default, info.name))

    def model(self, name: str) -> ModelInfo:
        """One loaded model; the default one for an empty name.

        Raises:
            ModelNotFoundError: no loaded model has that name.
        """
        self._gate.admit(Scope.MODELS)
        return self._find(name).info

    def check_model(self, name: str) -> None:
        """Raise ModelNotFoundError as `analyze` would; tells nothing else of a model."""
        self._find(name)

    def check_room(self, priority: Priority, context: RequestContext) -> None:
        """Refuse what `analyze`, `classify` and `score` would refuse whatever is asked; costs next to nothing.

        For protocols that know the priority before they have read the request.

        Raises:
            OverloadedError: no room; says when to come back.
            DeadlineError: no room, and the deadline passed.
            NotReadyError: draining.
        """
        self._calls.check_ready()
        self._admission.check_room(priority, left_s=self._deadline_s(context) - self._clock())

    async def analyze(self, data: bytes, options: AnalyzeOptions, context: RequestContext) -> ImageAnalysis:
        """Find and score the faces of one picture. No face is an empty answer, not an error.

        Args:
            data: an encoded picture, whole.
        Raises:
            RequestError: the bytes or the options cannot be used.
            ModelNotFoundError: no loaded model has the name asked for.
            OverloadedError: no room; says when to come back.
            DeadlineError: the deadline passed.
            WorkerFailedError: a face got no scores.
            NotReadyError: draining.
        """
        with self._calls.accept():
            return await self._analyze(data, options, context)

    async def analyze_many(
        self, images: Sequence[bytes], options: AnalyzeOptions, context: RequestContext
    ) -> list[ImageAnalysis | FerserveError]:
        """Analyse pictures, some of them side by side; each has its own outcome, in the order sent.

        Raises:
            ModelNotFoundError, NotReadyError: as for `analyze`; these concern all pictures alike.
        """
        outcomes: dict[int, ImageAnalysis | FerserveError] = {}
        todo = iter(enumerate(images))

        async def work_off() -> None:
            for index, data in todo:
                outcomes[index] = await self._outcome(data, options, context)

        with self._calls.accept():
            self._find(options.model)
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self._config.images_at_once, len(images))):
                    group.create_task(work_off())
        return [outcomes[index] for index in range(len(images))]

    async def classify(
        self, faces: Sequence[bytes], options: AnalyzeOptions, context: RequestContext
    ) -> FacesClassification:
        """Score pictures that are faces already; detection is skipped. A bad crop is an error in its place.

        Args:
            faces: encoded pictures, each of one face.
        Raises:
            InvalidRequestError: more crops than one call may hold.
            ModelNotFoundError, OverloadedError, DeadlineError, NotReadyError: as for `analyze`.
        """
        with self._calls.accept():
            return await self._classify(faces, options, context)

    async def occlusion(
        self, data: bytes, options: AnalyzeOptions, question: OcclusionQuestion, context: RequestContext
    ) -> OcclusionAnalysis:
        """Find out which parts of one face of a picture its top expression rests on; costs `question.faces` faces.

        Raises:
            InvalidRequestError: the picture has no such face.
            RequestError, ModelNotFoundError, OverloadedError, DeadlineError, WorkerFailedError, NotReadyError: as for
                `analyze`.
        """
        with self._calls.accept():
            return await self._occlusion(data, options, question, context)

    async def score(self, crops: CropBatch, options: AnalyzeOptions, context: RequestContext) -> CropScores:
        """Score crops that are as the model takes them; nothing is decoded, and one failure is the call's.

        Args:
            crops: uint8, shape (N, S, S, C), N at least 1.
        Raises:
            InvalidRequestError: no crop, more than one call may hold, or crops of another shape or type.
            WorkerFailedError: a crop got no scores.
            ModelNotFoundError, OverloadedError, DeadlineError, NotReadyError: as for `analyze`.
        """
        with self._calls.accept():
            return await self._score(crops, options, context)

    async def probe(self) -> None:
        """Score one grey crop with each model for real.

        Raises:
            WorkerFailedError: a worker does not work.
        """
        for model in list(self._models.values()):
            await model.worker.probe()

    async def drain(self, timeout_s: float) -> bool:
        """Accept no new calls, and wait for those accepted.

        Returns:
            Whether all were answered in time; `close` ends the others.
        """
        self._calls.drain()
        return await self._calls.drained(timeout_s)

    async def close(self) -> None:
        """Stop at once, workers included; calls that are not answered get NotReadyError."""
        self._calls.drain()
        await self._stage.close()
        for model in self._models.values():
            await model.close()

    def _find(self, name: str) -> LoadedModel:
        model = self._models.get(name or self._default)
        if model is None:
            raise ModelNotFoundError(f"model: expected one of {', '.join(sorted(self._models))}, got {name!r}")
        return model

    def _deadline_s(self, context: RequestContext) -> float:
        now_s = self._clock()
        if context.deadline_s is None:
            return now_s + self._config.default_deadline_ms / 1000
        return min(context.deadline_s, now_s + MAX_DEADLINE_S)

    async def _outcome(
        self, data: bytes, options: AnalyzeOptions, context: RequestContext
    ) -> ImageAnalysis | FerserveError:
        """One picture of many: its errors are its own, even those that nobody foresaw."""
        try:
            return await self._analyze(data, options, context)
        except FerserveError as error:
            return error
        except Exception as error:  # noqa: BLE001 - a fault in one picture must not cost its neighbours their answers
            unforeseen = FerserveError("internal error")
            unforeseen.__cause__ = error
            return unforeseen

    async def _analyze(self, data: bytes, options: AnalyzeOptions, context: RequestContext) -> ImageAnalysis:
        began_s = self._clock()
        self._gate.admit(Scope.ANALYZE)
        model = self._find(options.model)
        call = _Call(context.request_id, options.priority, self._deadline_s(context))
        if model.photos is not None:
            with model.in_use():
                return await self._analyze_there(model.photos, data, options, call, model=model.info)
        self._admission.check_room(call.priority, left_s=call.deadline_s - began_s)  # before a forecast
        forecast = self._forecast(model, call, faces=self._admission.expected_faces)
        with (
            model.in_use(),
            self._admission.admit(
                size_bytes=len(data), priority=options.priority, forecast=forecast, max_faces=options.max_faces
            ) as ticket,
        ):
            prepared = await self._prepared(partial(self._preparer.photo, data, options, model.spec), call)
            photo = prepared.value
            ticket.reconcile(found=photo.found, kept=len(photo.faces))
            outcomes = await _all_outcomes(self._submitted(model, [face.crop for face in photo.faces], call))
        waits = Waits(turn_s=prepared.queued_s, total_s=self._clock() - began_s)
        answer = photo_answer(photo, outcomes, model=model.info, detector=self._detector.name, waits=waits)
        self._observe_stages(decode_s=photo.decode_s, detect_s=photo.detect_s, preprocess_s=photo.preprocess_s)
        self._observe_forecast(forecast, waits)
        trace_answer(answer.timings)
        self._gate.charge(max(len(answer.faces), 1))
        self._observer.faces_skipped(photo.skipped)
        self._observer.image_scored(model.info.name, **_face_counts(answer.faces))
        return answer

    async def _analyze_there(
        self, photos: RemotePhotos, data: bytes, options: AnalyzeOptions, call: "_Call", *, model: ModelInfo
    ) -> ImageAnalysis:
        """Photo mode: a worker does all of it."""
        began_s = self._clock()
        needed_s = photos.expected_s(flow=call.flow, priority=call.priority)
        asked = PhotoOptions(
            detection_size_px=options.detection_size_px, exact=options.exact, max_faces=options.max_faces
        )
        with self._admission.admit(
            size_bytes=len(data),
            priority=options.priority,
            forecast=Forecast(needed_s=needed_s, left_s=call.deadline_s - began_s),
            max_faces=options.max_faces,
        ) as ticket:
            outcome = await photos.run(data, asked, flow=call.flow, priority=call.priority, deadline_s=call.deadline_s)
            photo = outcome.value
            ticket.reconcile(found=photo.found, kept=len(photo.faces))
        answer = remote_answer(outcome, model=model, total_s=self._clock() - began_s)
        self._observe_stages(decode_s=photo.decode_s, detect_s=photo.detect_s, preprocess_s=photo.preprocess_s)
        trace_answer(answer.timings)
        self._gate.charge(max(len(answer.faces), 1))
        self._observer.faces_skipped(photo.skipped)
        self._observer.image_scored(model.name, **_face_counts(answer.faces))
        return answer

    async def _occlusion(
        self, data: bytes, options: AnalyzeOptions, question: OcclusionQuestion, context: RequestContext
    ) -> OcclusionAnalysis:
        self._gate.admit(Scope.ANALYZE)
        began_s = self._clock()
        model = self._find(options.model)
        call = _Call(context.request_id, options.priority, self._deadline_s(context))
        forecast = self._forecast(model, call, faces=question.faces)
        with (
            model.in_use(),
            self._admission.admit_crops(
                size_bytes=len(data), priority=options.priority, forecast=forecast, faces=question.faces
            ),
        ):
            prepared = await self._prepared(
                partial(self._preparer.occlusion, data, options, question, model.spec), call
            )
            outcomes = await _all_outcomes(self._submitted(model, prepared.value.crops, call))
        waits = Waits(turn_s=prepared.queued_s, total_s=self._clock() - began_s)
        photo = prepared.value.photo
        self._observe_stages(decode_s=photo.decode_s, detect_s=photo.detect_s, preprocess_s=photo.preprocess_s)
        self._gate.charge(question.faces)
        answer = occlusion_answer(prepared.value, outcomes, model=model.info, waits=waits)
        trace_answer(answer.timings)
        return answer

    async def _classify(
        self, faces: Sequence[bytes], options: AnalyzeOptions, context: RequestContext
    ) -> FacesClassification:
        began_s = self._clock()
        self._gate.admit(Scope.ANALYZE)
        if len(faces) > self._config.max_crops:
            raise InvalidRequestError(f"faces: expected at most {self._config.max_crops}, got {len(faces)}")
        model = self._find(options.model)
        call = _Call(context.request_id, options.priority, self._deadline_s(context))
        size_bytes = sum(map(len, faces))
        forecast = self._forecast(model, call, faces=len(faces))
        with (
            model.in_use(),
            self._admission.admit_crops(
                size_bytes=size_bytes, priority=options.priority, forecast=forecast, faces=len(faces)
            ),
        ):
            prepared = await self._prepared(partial(self._preparer.crops, faces, model.spec), call)
            crops = [item for item in prepared.value.items if not isinstance(item, FerserveError)]
            futures = self._submitted(model, crops, call)
            results = await asyncio.gather(*futures, return_exceptions=True)
        waits = Waits(turn_s=prepared.queued_s, total_s=self._clock() - began_s)
        answer = crops_answer(prepared.value, _foreseen(results), model=model.info, waits=waits)
        self._observe_stages(decode_s=prepared.value.decode_s, preprocess_s=prepared.value.preprocess_s)
        self._observe_forecast(forecast, waits)
        trace_answer(answer.timings)
        scored = [item for item in answer.items if not isinstance(item, FerserveError)]
        self._gate.charge(max(len(scored), 1))
        self._observer.faces_scored(model.info.name, **_face_counts(scored))
        return answer

    async def _score(self, crops: CropBatch, options: AnalyzeOptions, context: RequestContext) -> CropScores:
        began_s = self._clock()
        self._gate.admit(Scope.ANALYZE)
        if not 1 <= len(crops) <= self._config.max_crops:
            raise InvalidRequestError(f"crops: expected 1 to {self._config.max_crops}, got {len(crops)}")
        model = self._find(options.model)
        call = _Call(context.request_id, options.priority, self._deadline_s(context))
        scored_s = model.batcher.expected_s(len(crops), flow=call.flow, priority=call.priority)
        with (
            model.in_use(),
            self._admission.admit_crops(
                size_bytes=crops.nbytes,
                priority=options.priority,
                forecast=Forecast(needed_s=scored_s, left_s=call.deadline_s - began_s),
                faces=len(crops),
            ),
        ):
            outcomes = await _all_outcomes(self._submitted(model, list(crops), call))
        waits = Waits(turn_s=0.0, total_s=self._clock() - began_s)
        answer = tensor_answer(outcomes, model=model.info, waits=waits)
        trace_answer(answer.timings)
        self._gate.charge(len(crops))
        tops = [EXPRESSIONS[place] for place in answer.scores.argmax(axis=1).tolist()]
        uncertain = int(np.count_nonzero(answer.scores.max(axis=1) < model.info.uncertain_below))
        self._observer.faces_scored(model.info.name, tops=tops, uncertain=uncertain)
        return answer

    def _forecast(self, model: LoadedModel, call: "_Call", *, faces: int) -> Forecast:
        """Both queues after each other; what a request takes where nobody waits does not count."""
        prepared_s = self._stage.expected_s(flow=call.flow, priority=call.priority)
        scored_s = model.batcher.expected_s(faces, flow=call.flow, priority=call.priority)
        return Forecast(needed_s=prepared_s + scored_s, left_s=call.deadline_s - self._clock())

    async def _prepared(self, work: Callable[[Caller], Steps[ResultT]], call: "_Call") -> Outcome[ResultT]:
        return await self._stage.run(work, flow=call.flow, priority=call.priority, deadline_s=call.deadline_s)

    def _submitted(
        self, model: LoadedModel, crops: Sequence[Crop], call: "_Call"
    ) -> "list[asyncio.Future[FaceOutcome]]":
        """Faces whose places admission promised."""
        return model.batcher.submit(
            crops, flow=call.flow, priority=call.priority, deadline_s=call.deadline_s, admitted=True
        )

    def _observe_stages(self, **durations_s: float) -> None:
        for name, duration_s in durations_s.items():
            self._observer.stage(name.removesuffix("_s"), duration_s)

    def _observe_forecast(self, forecast: Forecast, waits: Waits) -> None:
        if forecast.needed_s > 0:  # else nothing was in the way, and nothing foreseen
            self._observer.forecast(forecast.needed_s, waits.total_s)


@dataclass(frozen=True, slots=True)
class _Call:
    """What every queue on the way asks of a request."""

    flow: str
    priority: Priority
    deadline_s: float


class _FaceCounts(TypedDict):
    tops: list[Expression]
    uncertain: int


async def _all_outcomes(futures: "Sequence[asyncio.Future[FaceOutcome]]") -> list[FaceOutcome]:
    """Every face's scores, or the first failure: after it nobody waits for the others."""
    try:
        return await asyncio.gather(*futures)
    finally:
        for future in futures:
            future.cancel()


def _foreseen(results: Sequence[FaceOutcome | BaseException]) -> list[FaceOutcome | FerserveError]:
    """The results, unless one of them is a fault of the program: that is nobody's item, it fails the call."""
    foreseen: list[FaceOutcome | FerserveError] = []
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, FerserveError):
            raise result
        foreseen.append(result)
    return foreseen


def _face_counts(faces: Sequence[ScoredFace | FaceClassification]) -> _FaceCounts:
    return {"tops": [face.expression for face in faces], "uncertain": sum(face.uncertain for face in faces)}
