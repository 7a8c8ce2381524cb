"""What every question passes on its way, and what is told of it: forecast, a turn on a thread, the model's batcher."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypedDict, TypeVar

from ferserve.faces.labels import Expression
from ferserve.faces.types import Crop, ScoredFace
from ferserve.serving.access import Gate
from ferserve.serving.admission import Admission, Forecast
from ferserve.serving.analyzer_config import AnalysisObserver
from ferserve.serving.answers import Waits
from ferserve.serving.batcher import FaceOutcome
from ferserve.serving.models import LoadedModel
from ferserve.serving.outcomes import Outcome
from ferserve.serving.preparation import PreparationStage
from ferserve.serving.preparer import Work
from ferserve.serving.requests import FaceClassification, Priority, StageTimings
from ferserve.serving.tracing import trace_answer

ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Call:
    """One question: what every queue on the way asks of it.

    Attributes:
        model: what answers it; held by whoever computes (`LoadedModel.in_use`).
        flow: the unit of fairness.
        began_s: when it came, by the stages' clock.
        deadline_s: when nobody waits any more.
    """

    model: LoadedModel
    flow: str
    priority: Priority
    began_s: float
    deadline_s: float


class FaceCounts(TypedDict):
    """What observers are told of scored faces."""

    tops: list[Expression]
    uncertain: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stages:
    """The parts that questions of all kinds share.

    Attributes:
        admission: bounds what is in flight.
        preparation: turns bytes into crops, photos having turns.
        gate: is told what an answer cost its caller.
    """

    admission: Admission
    preparation: PreparationStage
    observer: AnalysisObserver
    gate: Gate
    clock: Callable[[], float]

    def forecast(self, call: Call, *, faces: int) -> Forecast:
        """Both queues after each other; what a request takes where nobody waits does not count."""
        prepared_s = self.preparation.expected_s(flow=call.flow, priority=call.priority)
        scored_s = call.model.batcher.expected_s(faces, flow=call.flow, priority=call.priority)
        return Forecast(needed_s=prepared_s + scored_s, left_s=call.deadline_s - self.clock())

    async def prepared(self, work: Work[ResultT], call: Call) -> Outcome[ResultT]:
        """What `work` gave, once the call had its turns."""
        return await self.preparation.run(work, flow=call.flow, priority=call.priority, deadline_s=call.deadline_s)

    def waits(self, call: Call, *, turn_s: float) -> Waits:
        """How long the call has waited and taken by now."""
        return Waits(turn_s=turn_s, total_s=self.clock() - call.began_s)

    def answered(self, timings: StageTimings, *, faces: int, **stages_s: float) -> None:
        """Tell of an answer.

        Args:
            faces: what its caller is charged.
            stages_s: what its stages took, by name: `decode_s=…`.
        """
        for name, duration_s in stages_s.items():
            self.observer.stage(name.removesuffix("_s"), duration_s)
        trace_answer(timings)
        self.gate.charge(faces)

    def observe_forecast(self, forecast: Forecast, waits: Waits) -> None:
        """Tell how good a forecast was."""
        if forecast.needed_s > 0:  # else nothing was in the way, and nothing foreseen
            self.observer.forecast(forecast.needed_s, waits.total_s)


def submitted(crops: Sequence[Crop], call: Call) -> "list[asyncio.Future[FaceOutcome]]":
    """Faces whose places admission promised, on their way to the model."""
    return call.model.batcher.submit(
        crops, flow=call.flow, priority=call.priority, deadline_s=call.deadline_s, admitted=True
    )


async def all_outcomes(futures: "Sequence[asyncio.Future[FaceOutcome]]") -> list[FaceOutcome]:
    """Every face's scores, or the first failure: after it nobody waits for the others."""
    try:
        return await asyncio.gather(*futures)
    finally:
        for future in futures:
            future.cancel()


def face_counts(faces: Sequence[ScoredFace | FaceClassification]) -> FaceCounts:
    """What observers are told of these faces."""
    return {"tops": [face.expression for face in faces], "uncertain": sum(face.uncertain for face in faces)}
