"""What a table of shards was begun with: its id, its key, and the settings that all its rows share."""

import hashlib
import json
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

from ferserve.serving.bulk.shards import ID_BYTES
from ferserve.serving.errors import ConfigError

FORMAT: Final = 1
Setting = str | int | float | bool | None
Settings = Mapping[str, Setting]


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The table's own record.

    Attributes:
        run: id that every shard repeats; a shard of another one is rubbish.
        key: 32 bytes in hex. Items are known by a keyed hash of their path, so that a table without paths does not
            give them away to whoever has the table alone.
        settings: what the rows depend on.
        finished: whether the run got to the end of its sources.
    """

    run: str
    key: str
    settings: Settings
    finished: bool = False
    format: int = FORMAT

    @classmethod
    def new(cls, settings: Settings) -> Self:
        """The manifest of a table that begins."""
        return cls(run=secrets.token_hex(8), key=secrets.token_hex(32), settings=dict(settings))

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Read what `to_json` wrote.

        Raises:
            ConfigError: it is no manifest of this version.
        """
        try:
            values: dict[str, Any] = json.loads(data)
            found = cls(**values)
        except (ValueError, TypeError) as error:
            raise ConfigError("expected a manifest that `ferserve score` wrote, got another file") from error
        if found.format != FORMAT:
            raise ConfigError(f"expected a manifest of format {FORMAT}, got {found.format}")
        return found

    def to_json(self) -> bytes:
        """As a file."""
        return json.dumps(asdict(self), indent=2).encode()

    def item_id(self, identity: bytes) -> bytes:
        """What an item is known by in this table."""
        return hashlib.blake2b(identity, key=bytes.fromhex(self.key), digest_size=ID_BYTES).digest()

    @property
    def settings_sha256(self) -> str:
        """Hash of the settings, 64 hex digits."""
        return hashlib.sha256(json.dumps(dict(self.settings), sort_keys=True).encode()).hexdigest()


def differences(old: Settings, new: Settings) -> list[str]:
    """What two settings differ in, in words."""
    names = sorted(set(old) | set(new))
    return [f"{name} {old.get(name)!r} is now {new.get(name)!r}" for name in names if old.get(name) != new.get(name)]
