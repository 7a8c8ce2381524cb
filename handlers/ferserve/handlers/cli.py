"""`ferserve torchserve`: run archives on a TorchServe server, write what one runs from, or measure its handlers."""

import dataclasses
import json
import os
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ferserve.faces.errors import FerserveError
from ferserve.faces.index import DEFAULT, open_archive

torchserve = typer.Typer(help="Run archives on a TorchServe server.")

Archives = Annotated[
    list[str] | None, typer.Argument(metavar="[PATH|NAME]...", help="Archives; the default one unless told otherwise.")
]
Folder = Annotated[Path, typer.Option(help="Written, and used while the server runs.")]
Host = Annotated[str, typer.Option(help="Of inference and metrics; management stays on loopback.")]
GrpcPort = Annotated[int, typer.Option(help="gRPC inference: what a gateway names in workers.endpoints.")]
HttpPort = Annotated[int, typer.Option(help="REST inference.")]
ManagementGrpcPort = Annotated[int, typer.Option(help="gRPC management, loopback.")]
ManagementHttpPort = Annotated[int, typer.Option(help="REST management, loopback.")]
MetricsPort = Annotated[int, typer.Option(help="TorchServe's own metrics.")]
Workers = Annotated[int, typer.Option(min=1, help="Processes for each archive.")]
DetectorName = Annotated[
    str | None, typer.Option("--detector", metavar="PATH|NAME", help="What photos are searched with.")
]


@torchserve.command()
def serve(
    archives: Archives = None,
    *,
    folder: Folder = Path("torchserve"),
    host: Host = "127.0.0.1",
    grpc_port: GrpcPort = 7070,
    http_port: HttpPort = 8080,
    management_grpc_port: ManagementGrpcPort = 7071,
    management_http_port: ManagementHttpPort = 8081,
    metrics_port: MetricsPort = 8082,
    workers: Workers = 1,
    detector: DetectorName = None,
    write_only: Annotated[
        bool, typer.Option("--write-only", help="Write the folder, print the command, and start nothing.")
    ] = False,
) -> None:
    """Start TorchServe in this process's place, with these archives, on loopback, logging warnings alone."""
    from ferserve.handlers.server_folder import ServerSettings, java_command, server_environment, write_folder

    settings = ServerSettings(
        host=host,
        grpc_port=grpc_port,
        http_port=http_port,
        management_grpc_port=management_grpc_port,
        management_http_port=management_http_port,
        metrics_port=metrics_port,
        workers=workers,
        detector=detector,
    )
    command, environment = java_command(folder, settings), server_environment(folder, settings)
    write_folder(folder, [open_archive(name) for name in archives or (DEFAULT,)], settings)
    if write_only:
        new = {name: value for name, value in environment.items() if os.environ.get(name) != value}
        typer.echo(shlex.join(["env", *(f"{name}={value}" for name, value in new.items()), *command]))
        return
    Console(stderr=True).print(f"TorchServe: gRPC {host}:{grpc_port}, REST http://{host}:{http_port}", markup=False)
    sys.stdout.flush()
    os.execve(command[0], command, environment)  # noqa: S606 - no shell; signals go to the JVM itself


@torchserve.command()
def pack(
    archive: Annotated[
        str, typer.Argument(metavar="PATH|NAME", help="An archive without a handler, or with an older one.")
    ],
    out: Annotated[Path, typer.Option(help="The .mar to write.")],
) -> None:
    """Write an archive again with this version's handler; every other member stays as it is."""
    from ferserve.handlers.packing import with_handler

    typer.echo(with_handler(open_archive(archive), out).sha256)


@torchserve.command()
def bench(
    archive: Annotated[str, typer.Argument(metavar="[PATH|NAME]")] = DEFAULT,
    *,
    device: Annotated[
        str | None, typer.Option(help="Such as cpu or cuda:0; by default the first GPU, if there is one.")
    ] = None,
    precision: Annotated[str, typer.Option(help="On a GPU: auto, fp32 or fp16.")] = "auto",
    crops: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="A .npy file of crops to score; noise by default.")
    ] = None,
    photo: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="A photo, for how long one takes, by stages.")
    ] = None,
    detector: DetectorName = None,
    rounds: Annotated[int, typer.Option(min=2, help="Of turns for each batch size.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Time the handlers, without TorchServe around them, against the bare model; and see that the scores agree."""
    import numpy as np
    import torch

    from ferserve.faces.arrays import unpack_array
    from ferserve.faces.detectors import DEFAULT_DETECTOR
    from ferserve.handlers.benchmark import measure
    from ferserve.handlers.benchmark_report import print_report
    from ferserve.handlers.scorer import precision_wish

    if device is None:
        device = "cuda:0" if torch.cuda.is_available() else "cpu"
    elif torch.device(device).type == "cuda" and not torch.cuda.is_available():
        raise FerserveError(f"--device: expected cpu, for torch finds no GPU here, got {device}")
    report = measure(
        open_archive(archive),
        device=device,
        precision=precision_wish(precision),
        crops=None if crops is None else unpack_array(crops.read_bytes(), dtype=np.uint8),
        photo=None if photo is None else photo.read_bytes(),
        detector=detector or DEFAULT_DETECTOR,
        rounds=rounds,
    )
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(report), indent=2))
    else:
        print_report(report)
