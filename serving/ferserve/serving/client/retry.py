"""When a failed call is tried again: only when the server said after how long, and only while the deadline allows."""

from collections.abc import Callable
from dataclasses import dataclass, field

from ferserve.faces.errors import FerserveError
from ferserve.serving.channel_tls import ChannelTls


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientConfig:
    """How patient a client is, and who it is.

    Attributes:
        timeout_s: of a call with all its retries; None waits for ever. A stream has none unless it is given one.
        max_attempts: times that a call is sent at most, the first one included.
        api_key: for gateways that ask for one; sent with every call as it is, so with `tls` or over a network that is
            trusted.
        tls: what to trust and show; None to call without TLS.
    """

    timeout_s: float | None = 30.0
    max_attempts: int = 3
    api_key: str | None = field(default=None, repr=False)
    tls: ChannelTls | None = None

    def __post_init__(self) -> None:
        if self.timeout_s is not None and not self.timeout_s > 0:
            raise ValueError(f"timeout_s must be above 0 or None, got {self.timeout_s}")
        if self.max_attempts < 1:
            raise ValueError(f"max_attempts must be 1 or more, got {self.max_attempts}")

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What goes with every call."""
        return () if self.api_key is None else (("authorization", f"Bearer {self.api_key}"),)


class Attempts:
    """The attempts at one call, counted against its deadline."""

    def __init__(self, config: ClientConfig, timeout_s: float | None, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._left = config.max_attempts
        timeout_s = config.timeout_s if timeout_s is None else timeout_s
        self._deadline_s = None if timeout_s is None else clock() + timeout_s

    def remaining_s(self) -> float | None:
        """Seconds until the deadline, 0 or more; None without one."""
        return None if self._deadline_s is None else max(0.0, self._deadline_s - self._clock())

    def wait_s(self, error: FerserveError) -> float | None:
        """Count a failed attempt; seconds to wait before the next one, or None where `error` is the last word."""
        self._left -= 1
        delay_s = error.retry_after_s
        if delay_s is None or self._left == 0:
            return None
        remaining_s = self.remaining_s()
        return delay_s if remaining_s is None or delay_s < remaining_s else None
