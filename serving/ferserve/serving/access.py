"""Who may ask for what: API keys, their scopes and purposes, and how many faces a minute.

A protocol calls `identify` with what came as `Authorization`, before it reads a body. The analyzer calls `admit` and
`charge` for whoever was identified in its context, so that a door which forgets to ask is closed, not open.
"""

import logging
import re
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Final, Protocol

from ferserve.faces.errors import FerserveError
from ferserve.serving.errors import ForbiddenError, PurposeRefusedError, RateLimitedError, UnauthenticatedError
from ferserve.serving.keys import Key, KeyRing
from ferserve.serving.purposes import Scope

MAX_RETRY_S: Final = 60.0
AUDIT: Final = "ferserve.audit"
_BEARER: Final = re.compile(r"[Bb]earer +([A-Za-z0-9_-]{20,128})")
_CALLER: Final[ContextVar[Key | None]] = ContextVar("caller", default=None)
logger = logging.getLogger(AUDIT)


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessConfig:
    """Who may ask.

    Attributes:
        keys_file: the file of `ferserve key`; without one everybody who reaches the ports may ask for everything.
        purpose_guard: whether keys for work and education are refused unless they are marked medical or safety, as
            the European Union's AI Act has it (docs/purpose.md).
        audit: whether each request that comes with a key, or should, is logged: whose, what kind, and the outcome.
    """

    keys_file: Path | None = None
    purpose_guard: bool = True
    audit: bool = True


class Gate(Protocol):
    """Decides about requests."""

    def identify(self, authorization: Sequence[str], scope: Scope) -> None:
        """Find out who asks, and whether they may; what follows in this context is theirs.

        Args:
            authorization: every header or metadata entry of that name.
        Raises:
            UnauthenticatedError, ForbiddenError, PurposeRefusedError, RateLimitedError: they may not.
        """

    def admit(self, scope: Scope) -> None:
        """Ask again, for one picture or one call, for whoever was identified; raises as `identify`."""

    def charge(self, faces: int) -> None:
        """Count faces against the limit of whoever was identified."""


class OpenGate:
    """Everybody may ask for everything."""

    def identify(self, authorization: Sequence[str], scope: Scope) -> None:
        """Whoever it is."""

    def admit(self, scope: Scope) -> None:
        """Whatever it is."""

    def charge(self, faces: int) -> None:
        """However many."""


OPEN: Final = OpenGate()


class KeyGate:
    """Holders of a key may ask for what the key is for.

    Args:
        clock: seconds, rising.
        today: the day in UTC.
    Raises:
        ConfigError: the file of keys cannot be read.
    """

    def __init__(
        self,
        keys_file: Path,
        *,
        purpose_guard: bool,
        audit: bool,
        clock: Callable[[], float],
        today: Callable[[], date] = lambda: datetime.now(UTC).date(),
    ) -> None:
        self._ring = KeyRing(keys_file, clock)
        self._purpose_guard = purpose_guard
        self._audit = audit
        self._clock = clock
        self._today = today
        self._budgets: dict[str, _FaceBudget] = {}

    def identify(self, authorization: Sequence[str], scope: Scope) -> None:
        """Find out who asks, and whether they may."""
        _CALLER.set(None)
        try:
            _CALLER.set(self._holder(authorization))
            self.admit(scope)
        except FerserveError as error:
            self._log(scope, outcome=error.reason)
            raise
        self._log(scope, outcome="admitted")

    def admit(self, scope: Scope) -> None:
        """Ask for whoever was identified."""
        key = _CALLER.get()
        if key is None:
            raise UnauthenticatedError("expected a key as `Authorization: Bearer KEY`, got none")
        if key.expires is not None and self._today() >= key.expires:
            raise UnauthenticatedError(f"the key expired on {key.expires}")
        if scope not in key.scopes:
            raise ForbiddenError(
                f"expected a key for {scope}, got one for {', '.join(sorted(key.scopes)) or 'nothing'}"
            )
        if scope is Scope.ANALYZE:
            self._check_purpose(key)
            if key.faces_per_minute is not None:
                self._budget(key, key.faces_per_minute).check()

    def charge(self, faces: int) -> None:
        """Count faces."""
        key = _CALLER.get()
        if key is not None and key.faces_per_minute is not None:
            self._budget(key, key.faces_per_minute).charge(faces)

    def _holder(self, authorization: Sequence[str]) -> Key:
        if len(authorization) != 1:
            raise UnauthenticatedError(f"expected one `Authorization: Bearer KEY`, got {len(authorization)}")
        found = _BEARER.fullmatch(authorization[0].strip())
        key = self._ring.find(found.group(1)) if found else None
        if key is None:
            raise UnauthenticatedError("expected a known key as `Authorization: Bearer KEY`, got another")
        return key

    def _check_purpose(self, key: Key) -> None:
        if self._purpose_guard and key.is_refused_by_law:
            raise PurposeRefusedError(
                f"the key's purpose is {key.purpose}: inferring emotions there is forbidden in the European Union, but "
                "for medical or safety reasons (Regulation 2024/1689, article 5(1)(f); see docs/purpose.md)"
            )

    def _budget(self, key: Key, faces_per_minute: int) -> "_FaceBudget":
        budget = self._budgets.get(key.name)
        if budget is None or budget.faces_per_minute != faces_per_minute:
            self._budgets[key.name] = budget = _FaceBudget(faces_per_minute, self._clock)
        return budget

    def _log(self, scope: Scope, *, outcome: str) -> None:
        key = _CALLER.get()
        if self._audit:
            who = {"key": "(none)"} if key is None else {"key": key.name, "purpose": str(key.purpose)}
            logger.info("asked", extra={**who, "scope": str(scope), "outcome": str(outcome)})


def gate_of(config: AccessConfig, clock: Callable[[], float]) -> Gate:
    """The gate that the settings ask for.

    Raises:
        ConfigError: the file of keys cannot be read.
    """
    if config.keys_file is None:
        return OPEN
    return KeyGate(config.keys_file, purpose_guard=config.purpose_guard, audit=config.audit, clock=clock)


class _FaceBudget:
    """A minute's faces at once at most, refilled evenly; a photo's show only afterwards, so it may go below 0."""

    def __init__(self, faces_per_minute: int, clock: Callable[[], float]) -> None:
        self.faces_per_minute = faces_per_minute
        self._clock = clock
        self._left = float(faces_per_minute)
        self._filled_s = clock()

    def check(self) -> None:
        self._refill()
        if self._left < 1:
            wait_s = (1 - self._left) * 60 / self.faces_per_minute
            raise RateLimitedError(
                f"the key is for {self.faces_per_minute} faces a minute", retry_after_s=min(wait_s, MAX_RETRY_S)
            )

    def charge(self, faces: int) -> None:
        self._refill()
        self._left -= faces

    def _refill(self) -> None:
        now_s = self._clock()
        gained = (now_s - self._filled_s) * self.faces_per_minute / 60
        self._left = min(self._left + gained, float(self.faces_per_minute))
        self._filled_s = now_s
