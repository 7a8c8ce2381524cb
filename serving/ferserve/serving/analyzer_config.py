"""How the analyzer runs requests, and whom it tells about them."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Protocol

from ferserve.faces.labels import Expression
from ferserve.serving.cores import available_cores
from ferserve.serving.outcomes import DispatchObserver
from ferserve.serving.preparers.choice import PREPARATIONS, Preparation


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalyzerConfig:
    """How requests are run.

    Attributes:
        default_deadline_ms: for requests that name none, at least 1; each photo of `analyze_many` has it to itself.
        preparation: whether photos are decoded and searched in `processes`, one for each of `threads`, or on `threads`
            of the gateway's own process.
        threads: photos that are decoded and searched side by side, at least 1; all cores unless told otherwise.
        turn_ms: how long a photo has its thread, or how much CPU time of its process, before it lets others go first
            between two steps, at least 1; a selfie of 640 x 480 is done in the default.
        images_at_once: photos of one `analyze_many` in flight together, at least 1; more would only take the places
            of other requests.
        max_crops: most crops in one `classify`, at least 1.
        decode_budget_bytes: memory that decoding may take for large pictures together, beyond what every thread has for
            small ones, at least 1. A picture that takes more than this goes alone. With this default, the default
            archive and two cores a gateway stays under 350 MB on threads (docs/adr/0072-350-mb.md) and under 400 with
            processes (docs/adr/0096-preparation-in-processes.md).
        max_decode_bytes: a picture that takes more than this by itself is refused, at least 1.
    """

    default_deadline_ms: int = 10_000
    preparation: Preparation = "processes"
    threads: int = field(default_factory=available_cores)
    turn_ms: int = 15
    images_at_once: int = 8
    max_crops: int = 512
    decode_budget_bytes: int = 72 * 2**20
    max_decode_bytes: int = 288 * 2**20

    def __post_init__(self) -> None:
        if self.preparation not in PREPARATIONS:
            raise ValueError(f"preparation must be one of {', '.join(PREPARATIONS)}, got {self.preparation!r}")
        for name in (item.name for item in fields(self) if item.name != "preparation"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


class AnalysisObserver(Protocol):
    """Is told what was found and where the time went; must not raise and must not block."""

    def preparation(self) -> DispatchObserver:
        """Who is told about photos waiting for a thread."""

    def stage(self, stage: str, duration_s: float) -> None:
        """`decode`, `detect` or `preprocess` of one request took so long."""

    def forecast(self, foreseen_s: float, took_s: float) -> None:
        """A request that found the queues busy took so long, of which admission foresaw so much, above 0."""

    def image_scored(self, model: str, *, tops: Sequence[Expression], uncertain: int) -> None:
        """A photo was answered; `tops` has the highest expression of each of its faces."""

    def faces_scored(self, model: str, *, tops: Sequence[Expression], uncertain: int) -> None:
        """Crops were answered; `tops` has the highest expression of each."""

    def faces_skipped(self, faces: int) -> None:
        """So many detections of a photo gave no crop and are left out of its answer."""
