"""`ferserve bench capacity`: what a gateway can do, by callers and by mix."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from ferserve.serving.commands.bench_options import (
    CrowdFaces,
    Crowds,
    DeadlineMs,
    Photos,
    Seed,
    mix_of,
    run_on_loop,
    works_of,
)
from ferserve.serving.commands.measured import Admin, Target, measured_gateway, serve_flags
from ferserve.serving.commands.options import AsJson, DetectorName, Hashes, Models

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ferserve.serving.benchmarks.gateways import Subject
    from ferserve.serving.benchmarks.load import LoadReport
    from ferserve.serving.benchmarks.transports import Work


def capacity(
    photos: Photos = None,
    *,
    crowds: Crowds = 0.0,
    crowd_faces: CrowdFaces = 25,
    deadline_ms: DeadlineMs = 2000,
    seconds: Annotated[float, typer.Option(min=4.0, help="Of each row; its first quarter is not counted.")] = 8.0,
    seed: Seed = 1,
    target: Target = None,
    admin: Admin = None,
    model: Models = None,
    sha256: Hashes = None,
    detector: DetectorName = None,
    as_json: AsJson = False,
) -> None:
    """Print a table of what a gateway can do: 1 to 16 callers over gRPC, photos alone, crowds alone, and mixed."""
    from ferserve.serving.benchmarks.stages import describe_machine
    from ferserve.serving.commands.bench_report import print_capacity
    from ferserve.serving.commands.figures import echo_json

    selfies, crowd = works_of(photos, crowds=crowds, crowd_faces=crowd_faces, deadline_ms=deadline_ms)
    machine = describe_machine()
    with (
        Console(stderr=True).status("measuring"),
        measured_gateway(serve_flags(model, sha256, detector), target=target, admin=admin) as subject,
    ):
        table = run_on_loop(_table(subject, selfies, crowd, crowds, step_s=seconds, seed=seed))
    if as_json:
        echo_json({"machine": machine, "capacity": table})
    else:
        print_capacity(table, machine)


async def _table(
    subject: "Subject",
    selfies: "Sequence[Work]",
    crowd: "Sequence[Work]",
    crowds: float,
    *,
    step_s: float,
    seed: int,
) -> "dict[str, list[LoadReport]]":
    from ferserve.serving.benchmarks.load import measure_capacity, with_faces

    photos, crowd = await with_faces(selfies, subject.target), await with_faces(crowd, subject.target)
    mixes = {"photos": mix_of(photos, [], crowds=0.0)}
    if crowd:
        mixes[crowd[0].name] = mix_of([], crowd, crowds=1.0)
        mixes[f"{crowds:.0%} crowds"] = mix_of(photos, crowd, crowds=crowds)
    return await measure_capacity(subject, mixes, step_s=step_s, seed=seed)
