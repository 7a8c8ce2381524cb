"""`ferserve report`: what a table of `ferserve score` comes to, as one HTML page."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ferserve.serving.errors import ConfigError


def report(
    scores: Annotated[
        Path, typer.Argument(exists=True, help="What `ferserve score` wrote: a folder, or a .parquet, .csv or .jsonl.")
    ],
    *,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", dir_okay=False, help="The page; beside the table by default.")
    ] = None,
    annotate: Annotated[
        list[str] | None,
        typer.Option(metavar="VIDEO", help="Write a copy of this scored video with boxes and labels. Repeatable."),
    ] = None,
    annotated: Annotated[
        Path | None, typer.Option(metavar="DIR", file_okay=False, help="Where copies go; beside the page by default.")
    ] = None,
) -> None:
    """Write one self-contained HTML page: expressions, certainty, quality, folders, errors, timelines of videos."""
    from ferserve.serving.bulk.disk import RealDisk, write_whole
    from ferserve.serving.bulk.report.annotated import frames_of, write_annotated
    from ferserve.serving.bulk.report.figures import count
    from ferserve.serving.bulk.report.page import render
    from ferserve.serving.bulk.report.reading import is_finished, read_scores

    page = out or scores.absolute().with_suffix(".html")
    place = annotated or page.parent
    for folder in (page.parent, place):
        if not folder.is_dir():
            raise ConfigError(f"expected an existing folder to write into, got {folder}")
    with Console(stderr=True).status("counting"):
        figures = count(read_scores(scores))
        text = render(figures, name=scores.name, is_finished=is_finished(scores))
        write_whole(RealDisk(), page, text.encode())
    typer.echo(page)
    for video in annotate or ():
        copy = place / f"{Path(video).stem}-annotated.mp4"
        with Console(stderr=True).status(f"annotating {video}"):
            write_annotated(video, frames_of(read_scores(scores), video), copy)
        typer.echo(copy)
