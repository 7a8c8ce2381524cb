"""Which workers score, and when one of them is taken out."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from ferserve.serving.channel_tls import ChannelTls, check_pair

WorkerKind = Literal["embedded", "torchserve", "triton"]
MAX_CONCURRENCY: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkersConfig:
    """Where batches are scored.

    Attributes:
        kind: `embedded` is ONNX Runtime in this process; `torchserve` and `triton` are servers at `endpoints`.
        endpoints: host:port of each server's gRPC port; none for `embedded`. Every loaded archive is scored by all.
        photo_mode: photos go to the servers whole, which decode and search them too, with a detector of their own; for
            `torchserve`. It takes work off this machine, and the faces of different photos share no batch any more.
        concurrency: batches that one server is given at once, 1 to 256: more than one, or it idles while an answer
            travels. `embedded` has its own threads.
        call_timeout_s: longest that a server may take for one batch or one probe, above 0. A probe that takes longer
            takes the server out, and so do `failures_to_open` batches in a row.
        recovery_timeout_s: longest that connecting to a server, or bringing a model back on it, may take; above 0.
        probe_interval_s: a worker that scored nothing for so long is asked to score a grey crop, above 0.
        failures_to_open: failures in a row that take a worker out, at least 1; wrong answers do so at once.
        retry_s: how long a worker is left alone once taken out, above 0; doubled at each failed trial and at each
            relapse.
        max_retry_s: the most that it is doubled to, at least `retry_s`.
        tls_ca_file: authorities of the servers' certificates, PEM; with them servers are called with TLS.
        tls_certificate_file: the gateway's own certificate, PEM, for servers that ask for one.
        tls_key_file: its private key, PEM.
    """

    kind: WorkerKind = "embedded"
    endpoints: tuple[str, ...] = ()
    photo_mode: bool = False
    concurrency: int = 2
    call_timeout_s: float = 2.0
    recovery_timeout_s: float = 60.0
    probe_interval_s: float = 5.0
    failures_to_open: int = 3
    retry_s: float = 0.5
    max_retry_s: float = 5.0
    tls_ca_file: Path | None = None
    tls_certificate_file: Path | None = None
    tls_key_file: Path | None = None

    @property
    def tls(self) -> ChannelTls | None:
        """What servers are called with; None for no TLS."""
        if self.tls_ca_file is None:
            return None
        return ChannelTls(
            ca_file=self.tls_ca_file, certificate_file=self.tls_certificate_file, key_file=self.tls_key_file
        )

    def __post_init__(self) -> None:
        self._check_kind()
        self._check_tls()
        for endpoint in self.endpoints:
            _check_endpoint(endpoint)
        if len(set(self.endpoints)) != len(self.endpoints):
            raise ValueError(f"endpoints must differ, got {', '.join(self.endpoints)}")
        if not 1 <= self.concurrency <= MAX_CONCURRENCY:
            raise ValueError(f"concurrency must be 1 to {MAX_CONCURRENCY}, got {self.concurrency}")
        if self.failures_to_open < 1:
            raise ValueError(f"failures_to_open must be at least 1, got {self.failures_to_open}")
        for name in ("call_timeout_s", "recovery_timeout_s", "probe_interval_s", "retry_s"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        if not self.retry_s <= self.max_retry_s < math.inf:
            raise ValueError(f"max_retry_s must be at least retry_s ({self.retry_s}), got {self.max_retry_s}")

    def _check_tls(self) -> None:
        check_pair(self.tls_certificate_file, self.tls_key_file, prefix="tls_")
        if self.tls_certificate_file is not None and self.tls_ca_file is None:
            raise ValueError(f"tls_certificate_file needs tls_ca_file, got {self.tls_certificate_file} alone")

    def _check_kind(self) -> None:
        if self.kind == "embedded" and self.endpoints:
            raise ValueError(f"endpoints must be empty for kind embedded, got {', '.join(self.endpoints)}")
        if self.kind != "embedded" and not self.endpoints:
            raise ValueError(f"endpoints must name at least one server for kind {self.kind}, got none")
        if self.photo_mode and self.kind != "torchserve":
            raise ValueError(f"photo_mode must be false for kind {self.kind}: only torchserve takes whole photos")


def _check_endpoint(endpoint: str) -> None:
    host, _, port = endpoint.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 2**16:
        raise ValueError(f"endpoints must be host:port each, got {endpoint!r}")
