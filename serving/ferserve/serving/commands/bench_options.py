"""What the commands of `ferserve bench` that put a load on a gateway have in common."""

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import typer

from ferserve.serving.errors import ConfigError
from ferserve.serving.requests import AnalyzeOptions

if TYPE_CHECKING:
    from ferserve.serving.benchmarks.load import Mix
    from ferserve.serving.benchmarks.transports import Work

ResultT = TypeVar("ResultT")
CROWD_SIDE_PX: Final = 1280
"""Longer side of a crowd's picture: its 25 faces are of 130 pixels, 200 of 50."""
Photos = Annotated[
    list[Path] | None,
    typer.Argument(exists=True, dir_okay=False, help="Photos, asked equally often; synthetic noise by default."),
]
Crowds = Annotated[
    float,
    typer.Option(
        "--crowds", min=0.0, max=1.0, help="Share of the requests that are a crowd of the first photo's face."
    ),
]
CrowdFaces = Annotated[int, typer.Option(min=2, max=200, help="Faces in a crowd.")]
DeadlineMs = Annotated[int, typer.Option(min=1, help="Of each request.")]
Seed = Annotated[int, typer.Option(min=0, help="Of arrivals and draws.")]


def works_of(
    photos: Sequence[Path] | None, *, crowds: float, crowd_faces: int, deadline_ms: int
) -> "tuple[list[Work], list[Work]]":
    """The photos, and the crowd if there are any.

    Raises:
        RequestError: a file is no picture, or no face for a crowd is found in the first.
        ConfigError: crowds without a photo.
    """
    from ferserve.serving.benchmarks.payloads import Payloads, photo_work
    from ferserve.serving.benchmarks.stages import synthetic_picture

    timeout_s = deadline_ms / 1000
    if photos:
        selfies = [photo_work(path.name, path.read_bytes(), AnalyzeOptions(), timeout_s) for path in photos]
    else:
        selfies = [photo_work("noise", synthetic_picture(), AnalyzeOptions(), timeout_s)]
    if crowds == 0:
        return selfies, []
    if not photos:
        raise ConfigError("--crowds: expected a photo with a face to make them of, got none")
    payloads = Payloads(
        photos[0].read_bytes(), crops=None, side_px=None, crowd_side_px=CROWD_SIDE_PX, timeout_s=timeout_s
    )
    return selfies, [replace(payloads.crowd(crowd_faces), timeout_s=timeout_s)]


def mix_of(selfies: "Sequence[Work]", crowd: "Sequence[Work]", *, crowds: float) -> "Mix":
    """Photos share evenly what crowds leave."""
    from ferserve.serving.benchmarks.load import Mix

    parts = [(work, (1 - crowds) / len(selfies)) for work in selfies] if crowds < 1 else []
    return Mix(parts=(*parts, *((work, crowds) for work in crowd)))


def run_on_loop(work: Coroutine[Any, Any, ResultT]) -> ResultT:
    """Run a measurement on a fast event loop."""
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)
