"""When a failed call is tried again: when the server said after how long, or when no server answered.

Only while the deadline allows. All calls may be sent twice: a gateway keeps nothing of them (docs/adr/0086).
"""

import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from ferserve.faces.errors import FerserveError
from ferserve.serving.channel_tls import ChannelTls
from ferserve.serving.client.failures import NoAnswerError
from ferserve.serving.convert import REQUEST_ID_KEY

FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 2.0
"""Between attempts that nobody answered; each is up to half shorter, so that callers do not come back together."""

Metadata = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientConfig:
    """How patient a client is, and who it is.

    Attributes:
        timeout_s: of a call with all its retries; None waits for ever. A stream has none unless it is given one.
        max_attempts: times that a call, or a frame of a stream, is sent at most, the first one included.
        api_key: for gateways that ask for one; sent with every call as it is, so with `tls` or over a network that is
            trusted.
        tls: what to trust and show; None to call without TLS.
    """

    timeout_s: float | None = 30.0
    max_attempts: int = 5
    api_key: str | None = field(default=None, repr=False)
    tls: ChannelTls | None = None

    def __post_init__(self) -> None:
        if self.timeout_s is not None and not self.timeout_s > 0:
            raise ValueError(f"timeout_s must be above 0 or None, got {self.timeout_s}")
        if self.max_attempts < 1:
            raise ValueError(f"max_attempts must be 1 or more, got {self.max_attempts}")

    def metadata(self) -> Metadata:
        """What goes with one call and all its attempts: who asks, and an id by which the gateway's log joins them."""
        named = ((REQUEST_ID_KEY, os.urandom(16).hex()),)
        return named if self.api_key is None else (*named, ("authorization", f"Bearer {self.api_key}"))


class Attempts:
    """The attempts at one call, counted against its deadline.

    Args:
        chance: draws from [0, 1), for the pauses.
    """

    def __init__(
        self,
        config: ClientConfig,
        timeout_s: float | None,
        clock: Callable[[], float],
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._clock = clock
        self._chance = chance
        self._most = config.max_attempts
        self._failed = 0
        timeout_s = config.timeout_s if timeout_s is None else timeout_s
        self._deadline_s = None if timeout_s is None else clock() + timeout_s

    def remaining_s(self) -> float | None:
        """Seconds until the deadline, 0 or more; None without one."""
        return None if self._deadline_s is None else max(0.0, self._deadline_s - self._clock())

    def succeeded(self) -> None:
        """Forget the attempts that failed."""
        self._failed = 0

    def wait_s(self, error: FerserveError) -> float | None:
        """Count a failed attempt; seconds to wait before the next one, or None where `error` is the last word."""
        self._failed += 1
        delay_s = self._pause_s() if isinstance(error, NoAnswerError) else error.retry_after_s
        if delay_s is None or self._failed >= self._most:
            return None
        remaining_s = self.remaining_s()
        return delay_s if remaining_s is None or delay_s < remaining_s else None

    def _pause_s(self) -> float:
        longest_s: float = min(FIRST_PAUSE_S * 2.0 ** (self._failed - 1), LONGEST_PAUSE_S)
        return longest_s * (1 - self._chance() / 2)
