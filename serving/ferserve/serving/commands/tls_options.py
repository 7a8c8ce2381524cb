"""Flags about certificates and keys: what a gateway shows and asks for, what a caller trusts and shows."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ferserve.serving.errors import ConfigError

if TYPE_CHECKING:
    from ferserve.serving.client import ClientConfig

ServerCertificate = Annotated[
    Path | None,
    typer.Option(
        "--tls-cert", metavar="FILE", help="TLS on gRPC and HTTP: the certificate, PEM; read again when it changes."
    ),
]
ServerKey = Annotated[Path | None, typer.Option("--tls-key", metavar="FILE", help="Its private key, PEM.")]
ClientAuthority = Annotated[
    Path | None,
    typer.Option(
        "--tls-client-ca", metavar="FILE", help="Authorities of callers, PEM; callers must show a certificate then."
    ),
]
Tls = Annotated[
    bool, typer.Option("--tls", help="Call the gateway with TLS, trusting the authorities that gRPC ships.")
]
Authority = Annotated[
    Path | None,
    typer.Option("--tls-ca", metavar="FILE", help="Call the gateway with TLS, trusting these authorities, PEM."),
]
Certificate = Annotated[
    Path | None, typer.Option("--tls-cert", metavar="FILE", help="A certificate for gateways that ask for one, PEM.")
]
Key = Annotated[Path | None, typer.Option("--tls-key", metavar="FILE", help="Its private key, PEM.")]
ApiKeyFile = Annotated[
    Path | None,
    typer.Option("--key-file", metavar="FILE", help="Holds the API key for gateways that ask for one."),
]


def caller_config(
    *, tls: bool, tls_ca: Path | None, tls_cert: Path | None, tls_key: Path | None, key_file: Path | None
) -> "ClientConfig":
    """A client's settings from these flags.

    Raises:
        ConfigError: the flags contradict each other, or a file cannot be read.
    """
    from ferserve.serving.channel_tls import ChannelTls
    from ferserve.serving.client import ClientConfig

    if (tls_cert is None) is not (tls_key is None):
        raise ConfigError("--tls-cert, --tls-key: expected both or neither, got one")
    channel = ChannelTls(ca_file=tls_ca, certificate_file=tls_cert, key_file=tls_key)
    wanted = tls or channel != ChannelTls()
    return ClientConfig(tls=channel if wanted else None, api_key=None if key_file is None else _key_in(key_file))


def _key_in(file: Path) -> str:
    try:
        lines = file.read_text(encoding="ascii").split()
    except OSError as error:
        raise ConfigError(f"--key-file: {file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"--key-file: expected a key in {file}, got something else") from None
    if len(lines) != 1:
        raise ConfigError(f"--key-file: expected one key and nothing else in {file}, got {len(lines)} words")
    return lines[0]
