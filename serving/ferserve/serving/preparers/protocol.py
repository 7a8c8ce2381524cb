"""What `preparation` asks of whoever takes the steps of photos."""

from typing import Final, Protocol, TypeVar

from ferserve.serving.memory_budget import Grant
from ferserve.serving.preparer import Work

ResultT = TypeVar("ResultT")
ResultT_co = TypeVar("ResultT_co", covariant=True)


class Parked:
    """What a turn gives that ended before its photo was done."""

    def __reduce__(self) -> str:
        """There is one, in every process."""
        return "PARKED"


PARKED: Final = Parked()


class Photo(Protocol[ResultT_co]):
    """One photo that is on its way through its steps; its turns follow each other."""

    async def have_turn(self) -> ResultT_co | Parked:
        """Go on until the photo is done or the turn is over.

        Raises:
            FerserveError, MemoryNeededError: as the work does.
        """
        ...

    def abandon(self) -> None:
        """Nobody waits for it any more; what it holds is let go of now, or after the step that it is in."""
        ...


class PreparationSite(Protocol):
    """Takes the steps of photos, some side by side. All calls belong to one event loop."""

    @property
    def slots(self) -> int:
        """Photos that have their turns side by side."""
        ...

    @property
    def detector(self) -> str:
        """The name of the detector that searches here."""
        ...

    def photo(self, work: Work[ResultT], *, deadline_s: float, grant: Grant | None) -> Photo[ResultT]:
        """A photo whose first turn is still to come.

        Args:
            deadline_s: reading of the clock after which nobody waits for it.
            grant: what decoding may take; held until the last step was taken, also for a caller who has left. None
                is `FREE_BYTES`.
        """
        ...

    def others_wait(self, they_do: bool) -> None:  # noqa: FBT001 -- the one thing that it says
        """Whether a turn that has lasted its time is to end, from now on."""
        ...

    async def close(self) -> None:
        """Stop at once; the steps that were begun end by themselves."""
        ...
