"""TLS of the gateway's doors: one certificate for gRPC and for REST, read again when its files change.

Every new connection gets the certificate of now; those that are open go on with theirs, so that nobody is cut off.
Where an authority for callers is named, only who shows a certificate of it is let in, on both doors alike: gRPC's
Python server can ask for one or not, and cannot leave it to the caller. The admin port has no TLS (docs/deploy.md).
"""

import logging
import ssl
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import grpc

from ferserve.serving.certificates import earliest_end_s
from ferserve.serving.channel_tls import bytes_of, check_pair
from ferserve.serving.errors import ConfigError
from ferserve.serving.watched_files import WatchedFiles

LEAST_VERSION: Final = ssl.TLSVersion.TLSv1_2  # gRPC's own least one, too
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsConfig:
    """TLS of the gRPC and the HTTP port; none without a certificate.

    Attributes:
        certificate_file: the server's certificate and those that lead to its authority, PEM.
        key_file: its private key, PEM, not encrypted.
        client_ca_file: authorities of callers, PEM; with them a caller has to show a certificate (mTLS).
    """

    certificate_file: Path | None = None
    key_file: Path | None = None
    client_ca_file: Path | None = None

    def __post_init__(self) -> None:
        check_pair(self.certificate_file, self.key_file)
        if self.client_ca_file is not None and self.certificate_file is None:
            raise ValueError(f"client_ca_file needs certificate_file and key_file, got {self.client_ca_file} alone")


@dataclass(frozen=True, slots=True)
class _Material:
    """What was read, in the forms of both libraries."""

    context: ssl.SSLContext
    grpc: Any  # grpc's own class is not public
    ends_s: Mapping[str, float]


class ServerTls:
    """The certificate that new connections get. Threads of gRPC's ask for it, too.

    Args:
        clock: seconds, rising; the files are looked at as `WatchedFiles` does, when somebody connects.
    Raises:
        ConfigError: the files cannot be read at first, or do not fit each other.
    """

    def __init__(
        self, certificate_file: Path, key_file: Path, client_ca_file: Path | None, clock: Callable[[], float]
    ) -> None:
        self._certificate_file = certificate_file
        self._key_file = key_file
        self._client_ca_file = client_ca_file
        files = [certificate_file, key_file, *([client_ca_file] if client_ca_file else [])]
        self._files = WatchedFiles(files, clock)
        self._material = self._read()
        self._lock = threading.Lock()

    def context(self) -> ssl.SSLContext:
        """For servers of asyncio and uvloop: hands each connection over to the certificate of now."""
        return _ContextOfNow.of(self)

    def grpc_credentials(self) -> grpc.ServerCredentials:
        """For gRPC servers, the same."""
        given = self._material

        def changed() -> Any:  # None: as before
            nonlocal given
            before, given = given, self.material()
            return None if given is before else given.grpc

        return grpc.dynamic_ssl_server_credentials(
            given.grpc, changed, require_client_authentication=self._client_ca_file is not None
        )

    def material(self) -> _Material:
        """What is in force; what is wrong with new files is logged, and leaves the old ones in force."""
        with self._lock:
            if self._files.have_changed():
                try:
                    self._material = self._read()
                except ConfigError as error:
                    logger.error("the certificate of before stays in force: %s", error.message)  # noqa: TRY400 -- as above
                else:
                    logger.info("the certificate was read again")
            return self._material

    def ends_s(self) -> Mapping[str, float]:
        """When what is in force ends, in seconds since 1970; NaN where a file does not say.

        Returns:
            `server` for the certificate and those that lead to its authority, `callers` for the authorities of callers
            where there are some: of each the first to end.
        """
        return self.material().ends_s

    def _read(self) -> _Material:
        chain, key = bytes_of(self._certificate_file), bytes_of(self._key_file)
        authorities = None if self._client_ca_file is None else bytes_of(self._client_ca_file)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = LEAST_VERSION
        context.options |= ssl.OP_NO_RENEGOTIATION
        context.set_alpn_protocols(["http/1.1"])
        try:
            # The password keeps OpenSSL from asking the terminal for one.
            context.load_cert_chain(self._certificate_file, self._key_file, password="")
        except (ssl.SSLError, OSError) as error:
            raise ConfigError(
                f"tls: expected a certificate in {self._certificate_file} and its key, not encrypted, in "
                f"{self._key_file}, both PEM, got {_reason(error)}"
            ) from None
        if authorities is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            try:
                context.load_verify_locations(cadata=authorities.decode("ascii"))
            except (ssl.SSLError, ValueError) as error:
                raise ConfigError(
                    f"tls: expected certificates in PEM in {self._client_ca_file}, got {_reason(error)}"
                ) from None
        ends_s = {"server": earliest_end_s(chain)}
        if authorities is not None:
            ends_s["callers"] = earliest_end_s(authorities)
        return _Material(
            context=context,
            grpc=grpc.ssl_server_certificate_configuration([(key, chain)], root_certificates=authorities),
            ends_s=ends_s,
        )


class _ContextOfNow(ssl.SSLContext):
    """Stands where asyncio wants one context, and wraps each connection with the one that is in force.

    A context whose certificates are replaced in place would go on trusting authorities that were taken away, and let
    callers resume sessions which those had vouched for.
    """

    _tls: ServerTls

    @classmethod
    def of(cls, tls: ServerTls) -> Self:
        context = cls(ssl.PROTOCOL_TLS_SERVER)
        context._tls = tls
        return context

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        return self._tls.material().context.wrap_bio(*args, **kwargs)


def server_tls(config: TlsConfig, clock: Callable[[], float]) -> ServerTls | None:
    """The TLS that the settings ask for; None for none.

    Raises:
        ConfigError: the files cannot be read, or do not fit each other.
    """
    if config.certificate_file is None or config.key_file is None:
        return None
    return ServerTls(config.certificate_file, config.key_file, config.client_ca_file, clock)


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", None) or getattr(error, "strerror", None) or error)
