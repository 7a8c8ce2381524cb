"""`ferserve archive`: write a finished run as one archive, measured and with its card."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console


def archive(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")],
    data: Annotated[str, typer.Option(help="The data set to measure on, as NAME=DIR: fer2013=DIR.")],
    out: Annotated[Path, typer.Option(help="The .mar to write.")],
    weight_bits: Annotated[
        int | None,
        typer.Option(
            min=2,
            max=8,
            help="Weights of so many bits, for a large net: the ONNX graph alone goes in, no int8 and no .pt2.",
        ),
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of ONNX Runtime while measuring.")] = 2,
) -> None:
    """Export the graphs, int8 where it holds, measure them once on the test split, write the card and the archive."""
    from ferserve.training.pack import pack_run

    console = Console(stderr=True)
    with console.status("exporting and measuring"):
        packed = pack_run(run, data, out=out, threads=threads, weight_bits=weight_bits)
    figures = packed.manifest.figures
    int8 = f"{100 * figures['int8_public_accuracy']:.2f} %" if packed.has_int8 else "left out (see the card)"
    console.print(
        f"{out}: {out.stat().st_size / 2**20:.1f} MiB, int8 {int8}, FER-2013 public "
        f"{100 * figures['fer2013_public_accuracy']:.2f} %, ECE {100 * figures['fer2013_public_ece']:.2f} %"
    )
    typer.echo(packed.sha256)
