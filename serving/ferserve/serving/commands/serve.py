"""`ferserve serve`: gRPC, REST and the admin port."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ferserve.serving.commands.options import (
    DetectorName,
    Endpoints,
    Hashes,
    Models,
    PrecisionName,
    PreparationName,
    Threads,
    WorkersName,
    models_section,
)
from ferserve.serving.commands.tls_options import ClientAuthority, ServerCertificate, ServerKey

if TYPE_CHECKING:
    from ferserve.serving.preparers.origin import Origin

Port = Annotated[int | None, typer.Option(min=0, max=65535, help="0 takes a free one.")]


def serve(
    *,
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="Settings in TOML.")] = None,
    host: Annotated[str | None, typer.Option(help="Address of all three ports; loopback by default.")] = None,
    grpc_port: Port = None,
    http_port: Port = None,
    admin_port: Port = None,
    tls_cert: ServerCertificate = None,
    tls_key: ServerKey = None,
    tls_client_ca: ClientAuthority = None,
    model: Models = None,
    sha256: Hashes = None,
    detector: DetectorName = None,
    precision: PrecisionName = None,
    threads: Threads = None,
    preparation: PreparationName = None,
    workers: WorkersName = None,
    endpoint: Endpoints = None,
    print_config: Annotated[bool, typer.Option("--print-config", help="Print the settings in effect as TOML.")] = False,
) -> None:
    """Serve until SIGTERM or Ctrl-C, then drain.

    Settings come from --config, the environment (FERSERVE_SECTION__KEY) and flags; the last one wins.
    """
    import os

    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # or each failed handshake writes a line, in a form of gRPC's own
    origin = None if print_config or preparation == "threads" else _forked_origin()
    from ferserve.serving.allocator import return_large_buffers
    from ferserve.serving.app import run
    from ferserve.serving.config import ServeConfig
    from ferserve.serving.cores import switch_often
    from ferserve.serving.logs import configure_logging
    from ferserve.serving.settings import read_settings, to_toml

    ports = {"grpc": grpc_port, "http": http_port, "admin": admin_port}
    flags: dict[str, dict[str, Any]] = {name: _given(host=host, port=port) for name, port in ports.items()} | {
        "tls": _given(certificate_file=tls_cert, key_file=tls_key, client_ca_file=tls_client_ca),
        "models": models_section(model, sha256, detector, precision),
        "analyzer": _given(threads=threads, preparation=preparation),
        "embedded": _given(threads=threads),
        "workers": _given(kind=workers, endpoints=endpoint or None),
    }
    settings = read_settings(ServeConfig, file=config, environ=os.environ, flags=flags)
    if print_config:
        typer.echo(to_toml(settings), nl=False)
        return
    configure_logging(settings.log)
    return_large_buffers()
    switch_often()
    run(settings, typer.echo, origin)


def _forked_origin() -> "Origin | None":
    """What processes are forked from that prepare photos: before the gateway imports more, and starts threads.

    None where the system refuses: whoever needs one then says so.
    """
    import os

    from ferserve.serving.own_process import ONE_THREAD

    os.environ.update(ONE_THREAD)
    from ferserve.serving.preparers.origin import Origin

    try:
        return Origin.forked()
    except OSError:
        return None


def _given(**values: Any) -> dict[str, Any]:
    """What was given at all."""
    return {name: value for name, value in values.items() if value is not None}
