"""`ferserve models`: which archives there are, how good they were measured to be, and how fast they are here."""

import json
from statistics import median
from time import perf_counter
from typing import Annotated, Any, Final

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from ferserve.faces.archive import Archive
from ferserve.faces.cpu import read_cpu
from ferserve.faces.index import archive_names, open_archive
from ferserve.faces.precision import Precision, resolve_precision
from ferserve.serving.commands.options import AsJson

SHORT_HASH: Final = 12
MIN_WIDTH: Final = 132
"""A terminal wraps better than a table cuts."""
TIMED_FACES: Final = 30


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
    """List archives with accuracy, size, the precision that runs here and its time a face; each file is checked."""
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
        "size_bytes": archive.path.stat().st_size,
        "ms_per_face": _ms_per_face(archive),
        "uncertain_below": manifest.uncertain_below,
        "figures": dict(manifest.figures),
    }


def _table(archives: list[Archive]) -> Table:
    table = Table(caption="FER-2013 PublicTest in fp32, 95 % interval; ms: median of one face at a time, one thread")
    for heading in ("name", "version", "architecture", "accuracy", "MiB", "runs in", "ms a face", "SHA-256"):
        table.add_column(heading, no_wrap=True)
    for archive in archives:
        manifest = archive.manifest
        table.add_row(
            manifest.name,
            manifest.version,
            manifest.architecture,
            _accuracy(archive),
            f"{archive.path.stat().st_size / 2**20:.1f}",
            _precision(archive),
            f"{_ms_per_face(archive):.2f}",
            archive.sha256[:SHORT_HASH],
        )
    return table


def _accuracy(archive: Archive) -> str:
    figures = archive.manifest.figures
    names = [f"fer2013_public_accuracy{suffix}" for suffix in ("", "_low", "_high")]
    if not all(name in figures for name in names):
        return "not measured"
    value, low, high = (100 * figures[name] for name in names)
    return f"{value:.2f} % ({low:.2f} to {high:.2f})"


def _ms_per_face(archive: Archive) -> float:
    """Median time of scoring one face, milliseconds, in the precision that runs here; the first few warm up."""
    from ferserve.faces.session import ScoringSession

    spec = archive.manifest.preprocess
    session = ScoringSession.from_archive(archive, threads=1, precision=_precision(archive))
    rng = np.random.default_rng(0)
    faces = rng.integers(0, 256, (TIMED_FACES, 1, spec.size_px, spec.size_px, spec.channels), dtype=np.uint8)
    times_s = []
    for face in faces:
        began_s = perf_counter()
        session.score(face)
        times_s.append(perf_counter() - began_s)
    return 1000 * median(times_s[TIMED_FACES // 3 :])


def _precision(archive: Archive) -> Precision:
    """What serving runs on this machine unless told otherwise."""
    return resolve_precision("auto", archive, read_cpu())


def _precisions(archive: Archive) -> list[Precision]:
    """What the archive holds."""
    return ["fp32", "int8"] if archive.has_int8 else ["fp32"]
