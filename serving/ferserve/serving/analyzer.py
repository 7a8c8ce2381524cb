"""The use case, free of any protocol: bytes in, faces with scores out.

A photo's way: admission (refuses before anything costs) → a turn of preparation (decode, detect, crops, quality) → its
reservation is reconciled with the faces found → the model's batcher → answer. A `with` block holds the admission over
all of it, so whichever way a request ends, its place is free again.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from ferserve.faces.errors import FerserveError, InvalidRequestError
from ferserve.serving.access import OPEN, Gate
from ferserve.serving.admission import Admission
from ferserve.serving.analysis.crops import classify_crops, score_crops
from ferserve.serving.analysis.occlusion import analyze_occlusion
from ferserve.serving.analysis.photos import analyze_photo
from ferserve.serving.analysis.stages import Call, Stages
from ferserve.serving.analyzer_config import AnalysisObserver, AnalyzerConfig
from ferserve.serving.crowd_limit import CrowdLimit
from ferserve.serving.errors import ModelNotFoundError
from ferserve.serving.health import Health
from ferserve.serving.memory_budget import MemoryBudget
from ferserve.serving.models import LoadedModel
from ferserve.serving.preparation import PreparationStage
from ferserve.serving.preparers.protocol import PreparationSite
from ferserve.serving.purposes import Scope
from ferserve.serving.requests import (
    AnalyzeOptions,
    CropScores,
    FacesClassification,
    ImageAnalysis,
    ModelInfo,
    OcclusionAnalysis,
    OcclusionQuestion,
    Priority,
    RequestContext,
)
from ferserve.serving.workers.protocol import CropBatch

MAX_DEADLINE_S: Final = 3600.0
"""Longest that a request holds its place, however long its caller would wait."""


class Analyzer:
    """Analyses photos and crops with the loaded models. All calls belong to one event loop.

    Args:
        models: by name; owned by the analyzer from now on. Entries may be replaced while it runs: a request keeps the
            model that it found.
        default: name of the model that an empty name stands for; one of `models`.
        site: takes the steps of photos; closed by whoever made it, after the analyzer.
        admission: bounds what is in flight; nobody else's.
        bulk_share: of the turns, as in `BatchPolicyConfig`.
        observer: told about every request.
        clock: seconds, rising, at the rate of the event loop's; the one that deadlines are read from.
        gate: who may ask; everybody unless told otherwise.
        limit: of crowds, where workers compute on the same cores as the site.
    """

    def __init__(
        self,
        models: Mapping[str, LoadedModel],
        default: str,
        *,
        site: PreparationSite,
        config: AnalyzerConfig,
        admission: Admission,
        bulk_share: float,
        observer: AnalysisObserver,
        clock: Callable[[], float],
        gate: Gate = OPEN,
        limit: CrowdLimit | None = None,
    ) -> None:
        if default not in models:
            raise ValueError(f"default must be one of {', '.join(models) or '(no models)'}, got {default}")
        self._models = models
        self._default = default
        self._site = site
        self._config = config
        self._gate = gate
        self._clock = clock
        preparation = PreparationStage(
            site,
            bulk_share=bulk_share,
            memory=MemoryBudget(config.decode_budget_bytes, bulk_share=bulk_share, clock=clock),
            observer=observer.preparation(),
            clock=clock,
            limit=limit,
        )
        self._stages = Stages(
            admission=admission,
            preparation=preparation,
            observer=observer,
            gate=gate,
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
        self._stages.admission.check_room(priority, left_s=self._deadline_s(context) - self._clock())

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
            began_s = self._let_in()
            if len(faces) > self._config.max_crops:
                raise InvalidRequestError(f"faces: expected at most {self._config.max_crops}, got {len(faces)}")
            return await classify_crops(self._stages, self._call(options, context, began_s=began_s), faces)

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
            call = self._call(options, context, began_s=self._let_in())
            return await analyze_occlusion(self._stages, call, data, options, question)

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
            began_s = self._let_in()
            if not 1 <= len(crops) <= self._config.max_crops:
                raise InvalidRequestError(f"crops: expected 1 to {self._config.max_crops}, got {len(crops)}")
            return await score_crops(self._stages, self._call(options, context, began_s=began_s), crops)

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
        await self._stages.preparation.close()
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

    def _let_in(self) -> float:
        """When a question came whose caller may ask."""
        began_s = self._clock()
        self._gate.admit(Scope.ANALYZE)
        return began_s

    def _call(self, options: AnalyzeOptions, context: RequestContext, *, began_s: float) -> Call:
        return Call(
            model=self._find(options.model),
            flow=context.request_id,
            priority=options.priority,
            began_s=began_s,
            deadline_s=self._deadline_s(context),
        )

    async def _analyze(self, data: bytes, options: AnalyzeOptions, context: RequestContext) -> ImageAnalysis:
        call = self._call(options, context, began_s=self._let_in())
        return await analyze_photo(self._stages, call, data, options, detector=self._site.detector)

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
