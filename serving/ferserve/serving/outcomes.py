"""What becomes of jobs that wait for a slot, and who is told of it; `dispatch` is where they wait."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, Protocol, TypeVar

ResultT = TypeVar("ResultT")


class Drop(StrEnum):
    """Why a job left the queue without being run."""

    EXPIRED = "expired"
    CANCELLED = "cancelled"


class DispatchObserver(Protocol):
    """Is told what happens to jobs; must not raise and must not block."""

    def queued(self, jobs: int) -> None:
        """So many jobs wait now."""

    def started(self, waits_s: Sequence[float]) -> None:
        """A batch begins; for each of its jobs how long it waited."""

    def finished(self, jobs: int, run_s: float, expected_s: float) -> None:
        """A batch of so many jobs ended, well or not, after `run_s`; expected were `expected_s`, 0 where unknown."""

    def dropped(self, cause: Drop, jobs: int) -> None:
        """So many jobs left the queue before any computation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome(Generic[ResultT]):
    """What a job's future holds.

    Attributes:
        queued_s: from submission to the start of its batch.
        run_s: from there to the batch's end.
    """

    value: ResultT
    queued_s: float
    run_s: float
