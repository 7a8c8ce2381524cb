"""gRPC channels of whoever calls: our clients to a gateway, a gateway to its workers; plain or with TLS."""

from pathlib import Path

import grpc

from ferserve.serving.channel_tls import ChannelTls, Options, bytes_of


def open_channel(target: str, tls: ChannelTls | None, options: Options) -> grpc.Channel:
    """A blocking channel; raises ConfigError where a file of `tls` cannot be read."""
    if tls is None:
        return grpc.insecure_channel(target, options=options)
    return grpc.secure_channel(target, credentials_of(tls), options=tls.named(options))


def open_aio_channel(target: str, tls: ChannelTls | None, options: Options) -> grpc.aio.Channel:
    """An asyncio channel; raises as `open_channel`."""
    if tls is None:
        return grpc.aio.insecure_channel(target, options=options)
    return grpc.aio.secure_channel(target, credentials_of(tls), options=tls.named(options))


def credentials_of(tls: ChannelTls) -> grpc.ChannelCredentials:
    """The same in gRPC's form.

    Raises:
        ConfigError: a file cannot be read.
    """
    return grpc.ssl_channel_credentials(
        root_certificates=_bytes_or_none(tls.ca_file),
        private_key=_bytes_or_none(tls.key_file),
        certificate_chain=_bytes_or_none(tls.certificate_file),
    )


def _bytes_or_none(path: Path | None) -> bytes | None:
    return None if path is None else bytes_of(path)
