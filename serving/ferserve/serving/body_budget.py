"""Bytes of requests that are held at one time, over both protocols: one bound for all of them together."""

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Final

from ferserve.serving.errors import OverloadedError

LARGE_BYTES: Final = 4 * 2**20
"""What comes over a network comes in thousands of small buffers; those of so large a message are worth giving back."""
FULL_RETRY_S: Final = 1.0
"""What a refused caller is told: bodies come and go with the answers, of which nobody here knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BodiesConfig:
    """How much of what callers send may be held.

    Attributes:
        max_held_bytes: of all REST bodies, gRPC messages and frames together, until they are answered: a REST body
            counts from its first byte, a gRPC message once it is there, for gRPC tells no sooner how long it is.
    """

    max_held_bytes: int = 96 * 2**20

    def __post_init__(self) -> None:
        if self.max_held_bytes < 1:
            raise ValueError(f"max_held_bytes must be at least 1, got {self.max_held_bytes}")


class BodyBudget:
    """Counts what is held. Not safe for several threads: one event loop owns it.

    Args:
        limit_bytes: of all together.
        large_freed: called after a part of at least `LARGE_BYTES` was freed.
    """

    def __init__(self, limit_bytes: int, *, large_freed: Callable[[], object] | None = None) -> None:
        self._limit_bytes = limit_bytes
        self._large_freed = large_freed
        self._held_bytes = 0

    @property
    def held_bytes(self) -> int:
        """Held now."""
        return self._held_bytes

    def add(self, size_bytes: int) -> None:
        """Hold more.

        Raises:
            OverloadedError: there is no room; says when to come back. Nothing of it is counted.
        """
        if self._held_bytes + size_bytes > self._limit_bytes:
            raise OverloadedError(
                f"no room for {size_bytes} more bytes of requests: {self._held_bytes} of {self._limit_bytes} are held",
                retry_after_s=FULL_RETRY_S,
            )
        self._held_bytes += size_bytes

    def free(self, size_bytes: int) -> None:
        """Hold so much less."""
        self._held_bytes -= size_bytes
        if self._large_freed is not None and size_bytes >= LARGE_BYTES:
            self._large_freed()

    def hold(self, size_bytes: int) -> "Held":
        """Hold so much until a `with` block ends; as it begins it raises as `add`."""
        return Held(self, size_bytes)


class Held:
    """Bytes of one request; see `BodyBudget.hold`."""

    __slots__ = ("_budget", "_size_bytes")

    def __init__(self, budget: BodyBudget, size_bytes: int) -> None:
        self._budget = budget
        self._size_bytes = size_bytes

    def __enter__(self) -> None:
        self._budget.add(self._size_bytes)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._budget.free(self._size_bytes)
