"""`ferserve triton`: an archive as a model in a Triton repository."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ferserve.faces.archive import Archive
from ferserve.faces.index import open_archive
from ferserve.serving.commands.options import AsJson
from ferserve.serving.errors import ConfigError
from ferserve.serving.triton_model import Device, GraphPrecision, TritonBackend


def triton(
    archive: Annotated[str, typer.Argument(metavar="PATH|NAME", help="The archive.")],
    *,
    out: Annotated[Path, typer.Option(metavar="DIR", help="The repository; other models in it are left alone.")],
    sha256: Annotated[str | None, typer.Option(metavar="HEX", help="What the archive's file must hash to.")] = None,
    precision: Annotated[GraphPrecision, typer.Option(help="Which graph of the archive.")] = "fp32",
    backend: Annotated[
        TritonBackend,
        typer.Option(help="python runs ONNX Runtime in a process of Triton's; onnxruntime, Triton's own, is untested."),
    ] = "python",
    instances: Annotated[int, typer.Option(min=1, help="Copies that score side by side.")] = 1,
    threads: Annotated[int, typer.Option(min=1, help="Threads of each copy.")] = 1,
    device: Annotated[Device, typer.Option(help="Where it computes; gpu is untested.")] = "cpu",
    as_json: AsJson = False,
) -> None:
    """Write the model of an archive into a Triton repository, for gateways with workers of kind triton."""
    from ferserve.serving.triton_model.repository import RepositoryOptions, write_repository

    options = RepositoryOptions(
        backend=backend, precision=precision, instances=instances, threads=threads, device=device
    )
    opened = open_archive(archive, sha256=sha256)
    try:
        model = write_repository(opened, out, options)
    except OSError as error:
        raise ConfigError(f"out: cannot write into {out}: {error.strerror}") from None
    _tell(opened, model, as_json=as_json)


def _tell(archive: Archive, model: Path, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"model": model.name, "path": str(model), "archive_sha256": archive.sha256}))
        return
    console = Console(stderr=True)
    for line in (
        f"wrote {model}",
        f"Triton:  tritonserver --model-repository={model.parent} --model-control-mode=explicit",
        "gateway: ferserve serve --workers triton --endpoint HOST:8001",
    ):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
