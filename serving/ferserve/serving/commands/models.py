"""`ferserve models`: which archives there are, and how good they were measured to be."""

import json
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from ferserve.faces.archive import Archive
from ferserve.faces.cpu import read_cpu
from ferserve.faces.index import archive_names, open_archive
from ferserve.faces.precision import Precision, resolve_precision
from ferserve.serving.commands.options import AsJson

SHORT_HASH = 12
MIN_WIDTH = 120
"""Figures have long names; a terminal wraps better than a table cuts."""


def models(
    archives: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PATH|NAME]...", help="Archives to describe; those that ship unless told otherwise."),
    ] = None,
    *,
    card: Annotated[
        bool, typer.Option("--card", help="Print the cards: figures by class, sources, terms, what was not measured.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List archives with version, hash, the precision that runs here, and measured figures; each file is checked."""
    opened = [open_archive(source) for source in archives or archive_names()]
    if card:
        for archive in opened:
            typer.echo(archive.card(), nl=False)
    elif as_json:
        typer.echo(json.dumps([_described(archive) for archive in opened], indent=2))
    else:
        Console(width=max(Console().width, MIN_WIDTH)).print(_table(opened))


def _described(archive: Archive) -> dict[str, Any]:
    manifest = archive.manifest
    return {
        "name": manifest.name,
        "version": manifest.version,
        "architecture": manifest.architecture,
        "paper": manifest.paper,
        "archive_sha256": archive.sha256,
        "preprocess_sha256": manifest.preprocess_sha256,
        "precision": _precision(archive),
        "precisions": _precisions(archive),
        "uncertain_below": manifest.uncertain_below,
        "figures": dict(manifest.figures),
    }


def _table(archives: list[Archive]) -> Table:
    table = Table()
    for heading in ("name", "version", "architecture", "runs in", "SHA-256", "figures"):
        table.add_column(heading, no_wrap=True)
    for archive in archives:
        manifest = archive.manifest
        figures = "\n".join(f"{name} {value:.4g}" for name, value in manifest.figures.items())
        precision = _precision(archive)
        table.add_row(
            manifest.name, manifest.version, manifest.architecture, precision, archive.sha256[:SHORT_HASH], figures
        )
    return table


def _precision(archive: Archive) -> Precision:
    """What serving runs on this machine unless told otherwise."""
    return resolve_precision("auto", archive, read_cpu())


def _precisions(archive: Archive) -> list[Precision]:
    """What the archive holds."""
    return ["fp32", "int8"] if archive.has_int8 else ["fp32"]
