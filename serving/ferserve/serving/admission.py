"""Whether a request may begin: asked before its picture is decoded, so that refusing costs next to nothing.

What is in flight is bounded in images, bytes and faces. How many faces a photo holds is not known before detection, so
it reserves the running mean of those before it and reconciles afterwards. Reconciling never refuses: an admitted photo
is seen through, and a crowd that was not expected shows up as refusals of those who come later.

What would be answered too late is refused too: the queues foresee how long a newcomer would take, and one that is let
in only to miss its deadline takes the time of others who would have met theirs.

Who is refused follows the queue's order of priority. Of each bound, bulk may fill `bulk_ceiling` and interactive the
rest too, so bulk is refused first as load grows; but `bulk_share` of each bound is kept free of interactive requests,
or a full house of interactive ones would shut bulk out for good. A class that has nothing in flight is never refused,
however large its first picture, so a bound may be exceeded by one picture of each class.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType, TracebackType
from typing import Final, Protocol, Self

from ferserve.serving.errors import DeadlineError, OverloadedError
from ferserve.serving.rate import ServiceRate, within_bounds
from ferserve.serving.requests import Priority

_MEAN_WEIGHT: Final = 1 / 16
"""Weight of the newest photo in the running mean of faces: about the last thirty count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionConfig:
    """How much may be in flight at once.

    Attributes:
        max_images: pictures, or calls with ready-made crops, at least 1.
        max_inflight_bytes: encoded bytes of them together, at least 1.
        max_inflight_faces: faces reserved and found together, at least 1. A bound for memory: 2,048 crops of the
            default archive are 5 MB, of one that takes 224 x 224 pixels in colour 300 MB. Who waits how long is not its
            business, and one of few crowds would refuse the selfies beside them.
        bulk_ceiling: share of each bound that bulk may help to fill, above 0 and at most 1.
        first_expected_faces: faces of a photo before any was seen, at least 0.
        deadline_share: of the time that a request has left, how much the forecast of its own may take, above 0 and at
            most 1; what is missing to 1 is for forecasts that turn out wrong.
    """

    max_images: int = 64
    max_inflight_bytes: int = 256 * 1024 * 1024
    max_inflight_faces: int = 2048
    bulk_ceiling: float = 0.8
    first_expected_faces: float = 2.0
    deadline_share: float = 0.6

    def __post_init__(self) -> None:
        for name in ("max_images", "max_inflight_bytes", "max_inflight_faces"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 < self.bulk_ceiling <= 1:
            raise ValueError(f"bulk_ceiling must be above 0 and at most 1, got {self.bulk_ceiling}")
        if not 0 <= self.first_expected_faces < math.inf:
            raise ValueError(f"first_expected_faces must be at least 0, got {self.first_expected_faces}")
        if not 0 < self.deadline_share <= 1:
            raise ValueError(f"deadline_share must be above 0 and at most 1, got {self.deadline_share}")


class Bound(StrEnum):
    """What ran out."""

    IMAGES = "images"
    BYTES = "bytes"
    FACES = "faces"
    TIME = "time"


_SMALLEST: Final = MappingProxyType({Bound.IMAGES: 1, Bound.BYTES: 0, Bound.FACES: 1})
"""What every request takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """Whether a request can make it, as its caller and the queues see it.

    Attributes:
        needed_s: until it would be done; 0 where nothing stands in its way.
        left_s: until its deadline.
    """

    needed_s: float
    left_s: float


class AdmissionObserver(Protocol):
    """Is told who comes and goes; must not raise and must not block."""

    def refused(self, bound: Bound, priority: Priority) -> None:
        """A request was refused for want of this."""

    def in_flight(self, images: int) -> None:
        """So many pictures are being worked on now."""


class Admission:
    """Counts what is in flight. Not safe for several threads: one event loop owns it.

    Args:
        config: the bounds.
        bulk_share: of each bound, as in `BatchPolicyConfig`.
        observer: told who comes, goes and is refused.
        clock: seconds, rising.
    """

    def __init__(
        self,
        config: AdmissionConfig,
        *,
        bulk_share: float,
        observer: AdmissionObserver,
        clock: Callable[[], float],
    ) -> None:
        self._deadline_share = config.deadline_share
        self._observer = observer
        self._clock = clock
        self._rate = ServiceRate()
        self._mean_faces = config.first_expected_faces
        self._budgets = {
            bound: _Budget(limit, bulk_ceiling=config.bulk_ceiling, bulk_share=bulk_share)
            for bound, limit in (
                (Bound.IMAGES, config.max_images),
                (Bound.BYTES, config.max_inflight_bytes),
                (Bound.FACES, config.max_inflight_faces),
            )
        }

    @property
    def images_in_flight(self) -> int:
        """Admitted and not yet released."""
        return self._budgets[Bound.IMAGES].used

    @property
    def faces_in_flight(self) -> int:
        """Reserved and found together."""
        return self._budgets[Bound.FACES].used

    @property
    def expected_faces(self) -> int:
        """What the next photo reserves, at least 1."""
        return max(math.ceil(self._mean_faces), 1)

    def check_room(self, priority: Priority, *, left_s: float) -> None:
        """Refuse what no bound has room for, whatever picture it is: before its bytes, its forecast or its model.

        Args:
            left_s: until its deadline.
        Raises:
            OverloadedError, DeadlineError: as for `admit`.
        """
        self._check_bounds(_SMALLEST, priority, left_s)

    def admit(
        self, *, size_bytes: int, priority: Priority, forecast: Forecast, max_faces: int | None = None
    ) -> "Ticket":
        """Let a photo in; release its ticket by leaving its `with` block.

        Args:
            size_bytes: of the encoded picture.
            max_faces: it will not submit more than these; None for no limit of its own.
        Raises:
            OverloadedError: no room; says when to come back.
            DeadlineError: no room, and no time to come back.
        """
        expected = self.expected_faces if max_faces is None else min(self.expected_faces, max_faces)
        return self._enter({Bound.IMAGES: 1, Bound.BYTES: size_bytes, Bound.FACES: expected}, priority, forecast)

    def admit_crops(self, *, size_bytes: int, priority: Priority, forecast: Forecast, faces: int) -> "Ticket":
        """Let a call with ready-made crops in: it counts as one picture whose faces are known.

        Raises:
            OverloadedError, DeadlineError: as for `admit`.
        """
        return self._enter({Bound.IMAGES: 1, Bound.BYTES: size_bytes, Bound.FACES: faces}, priority, forecast)

    def _check_bounds(self, amounts: Mapping[Bound, int], priority: Priority, left_s: float) -> None:
        for bound, amount in amounts.items():
            if not self._budgets[bound].has_room(amount, priority):
                _check_not_late(left_s)
                self._observer.refused(bound, priority)
                raise OverloadedError(
                    f"no room for more {bound} in flight ({priority.name.lower()}): "
                    f"{self._budgets[bound].used} of {self._budgets[bound].limit} are in use",
                    # By then what is in flight now is done, and whoever was refused at once with this one fits too.
                    retry_after_s=self._rate.retry_after_s(self.images_in_flight),
                )

    def _enter(self, amounts: dict[Bound, int], priority: Priority, forecast: Forecast) -> "Ticket":
        self._check_bounds(amounts, priority, forecast.left_s)
        self._check_time(priority, forecast)
        for bound, amount in amounts.items():
            self._budgets[bound].add(amount, priority)
        self._rate.work_began(self._clock())
        self._observer.in_flight(self.images_in_flight)
        return Ticket(self, amounts, priority)

    def _check_time(self, priority: Priority, forecast: Forecast) -> None:
        too_long_by_s = forecast.needed_s - self._deadline_share * forecast.left_s
        if too_long_by_s <= 0 or self._budgets[Bound.IMAGES].is_unused_by(priority):
            return
        _check_not_late(forecast.left_s)
        self._observer.refused(Bound.TIME, priority)
        raise OverloadedError(
            f"no time for more ({priority.name.lower()}): expected about {forecast.needed_s:.1f} s to the answer, "
            f"and the deadline is in {forecast.left_s:.1f} s",
            retry_after_s=within_bounds(too_long_by_s),
        )

    def _reconcile(self, ticket: "Ticket", *, found: int, kept: int) -> None:
        self._mean_faces += (found - self._mean_faces) * _MEAN_WEIGHT
        self._budgets[Bound.FACES].add(kept - ticket.amounts[Bound.FACES], ticket.priority)
        ticket.amounts[Bound.FACES] = kept

    def _leave(self, ticket: "Ticket", *, served: bool) -> None:
        for bound, amount in ticket.amounts.items():
            self._budgets[bound].add(-amount, ticket.priority)
        if served:
            self._rate.finished(1, self._clock())
        if self.images_in_flight == 0:
            self._rate.work_ended()
        self._observer.in_flight(self.images_in_flight)


def _check_not_late(left_s: float) -> None:
    """Whoever is too late already is not told to come back."""
    if left_s <= 0:
        raise DeadlineError("the deadline passed before the request came in")


class Ticket:
    """What one admitted request holds; leaving the `with` block gives it back, however it is left."""

    def __init__(self, admission: Admission, amounts: dict[Bound, int], priority: Priority) -> None:
        self._admission = admission
        self.amounts = amounts
        self.priority = priority

    def reconcile(self, *, found: int, kept: int) -> None:
        """Replace the expected faces by those there are; never refuses.

        Args:
            found: faces in the photo, for the running mean.
            kept: faces that will be scored.
        """
        self._admission._reconcile(self, found=found, kept=kept)  # noqa: SLF001 -- the two halves of one object

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._admission._leave(self, served=kind is None)  # noqa: SLF001 -- the two halves of one object


class _Budget:
    """One bound and who uses how much of it."""

    def __init__(self, limit: int, *, bulk_ceiling: float, bulk_share: float) -> None:
        self.limit = limit
        self._bulk_ceiling = math.floor(limit * bulk_ceiling)
        self._kept_for_bulk = math.floor(limit * bulk_share)
        self._used = dict.fromkeys(Priority, 0)
        self.used = 0

    def is_unused_by(self, priority: Priority) -> bool:
        return self._used[priority] == 0

    def has_room(self, amount: int, priority: Priority) -> bool:
        if self.is_unused_by(priority):
            return True
        bulk = self._used[Priority.BULK]
        after = self.used + amount
        if priority is Priority.BULK:
            # In its kept part bulk may pass the ceiling, but not the bound.
            in_kept_part = bulk + amount <= self._kept_for_bulk and after <= self.limit
            return in_kept_part or after <= self._bulk_ceiling
        return after + max(self._kept_for_bulk - bulk, 0) <= self.limit

    def add(self, amount: int, priority: Priority) -> None:
        self._used[priority] += amount
        self.used += amount
