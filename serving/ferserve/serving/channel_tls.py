"""What a caller over gRPC trusts and shows: settings, without gRPC itself, so that --help need not load it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ferserve.serving.errors import ConfigError

Options = Sequence[tuple[str, Any]]


def check_pair(certificate_file: Path | None, key_file: Path | None, *, prefix: str = "") -> None:
    """Raise ValueError unless both or neither are given; `prefix` stands before their names in the settings."""
    if (certificate_file is None) is not (key_file is None):
        raise ValueError(
            f"{prefix}certificate_file and {prefix}key_file must be given together, "
            f"got {certificate_file or 'no certificate'} and {key_file or 'no key'}"
        )


def bytes_of(path: Path) -> bytes:
    """A certificate's or key's file; raises ConfigError where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"tls: {path}: {error.strerror}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelTls:
    """What to trust and show. The files are read when a channel is opened.

    Attributes:
        ca_file: authorities that the server's certificate must lead to, PEM; None for those that gRPC ships.
        certificate_file: the caller's own certificate, PEM, for servers that ask for one.
        key_file: its private key, PEM.
        server_name: that the server's certificate must be for; None for the host that is called.
    """

    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None
    server_name: str | None = None

    def __post_init__(self) -> None:
        check_pair(self.certificate_file, self.key_file)

    def named(self, options: Options) -> Options:
        """Options of a channel, and the name among them."""
        return options if self.server_name is None else (*options, ("grpc.ssl_target_name_override", self.server_name))
