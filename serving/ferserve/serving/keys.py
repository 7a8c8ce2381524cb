"""API keys: what one may do and for what purpose, and the file that they stand in.

The file holds the SHA-256 of each key and never the key. Keys are 256 random bits, so there is nothing to guess and no
need of a slow hash: it would only slow every request down.
"""

import hashlib
import logging
import secrets
import tomllib
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import BaseModel, Field, ValidationError, model_validator

from ferserve.serving.errors import ConfigError
from ferserve.serving.purposes import GUARDED, Exemption, Purpose, Scope
from ferserve.serving.watched_files import WatchedFiles

KEY_BYTES: Final = 32
KEY_PREFIX: Final = "fer_"
"""Lets scanners for leaked secrets know one."""
logger = logging.getLogger(__name__)


class Key(BaseModel, frozen=True, extra="forbid"):
    """One key.

    Attributes:
        name: who has it, as logs say it.
        sha256: of the key itself, 64 hex digits.
        purpose: where the answers are used; declared by whoever asked for the key.
        exemption: only with a purpose that is guarded.
        faces_per_minute: most faces; None for no limit. A picture without a face counts as one.
        expires: the first day on which it is good no more; None for never.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    purpose: Purpose
    scopes: frozenset[Scope] = frozenset(Scope)
    exemption: Exemption | None = None
    faces_per_minute: Annotated[int, Field(ge=1)] | None = None
    expires: date | None = None

    @model_validator(mode="after")
    def _check_exemption(self) -> Self:
        if self.exemption is not None and self.purpose not in GUARDED:
            raise ValueError(f"exemption is for the purposes {', '.join(sorted(GUARDED))}, got {self.purpose}")
        return self

    @property
    def is_refused_by_law(self) -> bool:
        """Whether inferring emotions for this purpose is forbidden in the European Union."""
        return self.purpose in GUARDED and self.exemption is None


class _File(BaseModel, frozen=True, extra="forbid"):
    key: tuple[Key, ...] = ()


def new_key() -> tuple[str, str]:
    """A new key and its SHA-256."""
    key = KEY_PREFIX + secrets.token_urlsafe(KEY_BYTES)
    return key, sha256_of(key)


def sha256_of(key: str) -> str:
    """What the file holds of a key."""
    return hashlib.sha256(key.encode()).hexdigest()


def read_keys(path: Path) -> dict[str, Key]:
    """Read a file of keys, by SHA-256.

    Raises:
        ConfigError: it cannot be read, is no TOML, or says something unknown or wrong; names the entry.
    """
    try:
        keys = _File.model_validate(tomllib.loads(path.read_text(encoding="utf-8"))).key
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: expected TOML: {error}") from None
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        lines = (f"{'.'.join(map(str, line['loc']))}: {line['msg']}" for line in found)
        raise ConfigError(f"{path}: {'; '.join(lines)}") from None
    for field in ("name", "sha256"):
        if len({getattr(key, field) for key in keys}) < len(keys):
            raise ConfigError(f"{path}: expected a different {field} for each key, got one twice")
    return {key.sha256: key for key in keys}


class KeyRing:
    """The keys of a file, which is read again when it changes; a new file that is wrong leaves the old keys in force.

    Args:
        clock: seconds, rising; the file is looked at as `WatchedFiles` does.
    Raises:
        ConfigError: the file cannot be read at first.
    """

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        self._path = path
        self._file = WatchedFiles([path], clock)
        self._keys = read_keys(path)

    def find(self, key: str) -> Key | None:
        """The entry of a key; None for one that is not in the file."""
        if self._file.have_changed():
            self._read_again()
        return self._keys.get(sha256_of(key))

    def _read_again(self) -> None:
        try:
            self._keys = read_keys(self._path)
        except ConfigError as error:
            logger.error("the keys of before stay in force: %s", error.message)  # noqa: TRY400 -- no stack: it is the file
        else:
            logger.info("keys were read again", extra={"keys": len(self._keys)})
