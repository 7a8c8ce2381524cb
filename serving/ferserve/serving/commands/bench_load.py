"""`ferserve bench load`: one load on a gateway, and the same photos in `fer` for comparison."""

import os
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from ferserve.serving.benchmarks.protocols import ProtocolName
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
from ferserve.serving.commands.measured import Admin, KeepAwake, Rest, Target, measured_gateway, serve_flags
from ferserve.serving.commands.options import AsJson, DetectorName, Hashes, Models
from ferserve.serving.errors import ConfigError

if TYPE_CHECKING:
    from ferserve.serving.benchmarks.against import AgainstReport
    from ferserve.serving.benchmarks.gateways import Subject
    from ferserve.serving.benchmarks.load import LoadReport, Offer
    from ferserve.serving.benchmarks.transports import Work


class Peer(StrEnum):
    """What else does this work."""

    FER = "fer"


def load(
    photos: Photos = None,
    *,
    protocol: Annotated[
        list[ProtocolName] | None, typer.Option(help="How requests go; repeatable, measured in turn.")
    ] = None,
    rate: Annotated[
        float | None, typer.Option(min=0.01, help="Open loop: requests a second, at random times drawn beforehand.")
    ] = None,
    callers: Annotated[
        int, typer.Option(min=1, max=4096, help="Closed loop, without --rate: who each wait for their answer.")
    ] = 4,
    crowds: Crowds = 0.0,
    crowd_faces: CrowdFaces = 25,
    deadline_ms: DeadlineMs = 2000,
    seconds: Annotated[float, typer.Option(min=4.0, help="Of the load; its first quarter is not counted.")] = 20.0,
    seed: Seed = 1,
    against: Annotated[
        Peer | None,
        typer.Option(help="The same photos in this package too; an environment with it is made if missing."),
    ] = None,
    target: Target = None,
    rest: Rest = None,
    admin: Admin = None,
    model: Models = None,
    sha256: Hashes = None,
    detector: DetectorName = None,
    keep_awake: KeepAwake = False,
    as_json: AsJson = False,
) -> None:
    """Put one load on a gateway: goodput, faces a second, latencies, batches, CPU and memory.

    Generator and gateway share this machine unless --target is elsewhere; their parts of its CPU time are reported.
    """
    from ferserve.serving.benchmarks.load import Offer
    from ferserve.serving.benchmarks.stages import describe_machine
    from ferserve.serving.commands.bench_report import print_against, print_loads
    from ferserve.serving.commands.figures import echo_json

    if against is not None and not photos:
        raise ConfigError(f"--against: expected photos to compare on, got none with --against {against}")
    offer = Offer(rate_per_s=rate, callers=callers, duration_s=seconds, seed=seed)
    selfies, crowd = works_of(photos, crowds=crowds, crowd_faces=crowd_faces, deadline_ms=deadline_ms)
    protocols = protocol or [ProtocolName.GRPC]
    machine = describe_machine() | {"kept_awake": keep_awake}
    flags = serve_flags(model, sha256, detector)
    with (
        Console(stderr=True).status("measuring"),
        measured_gateway(flags, target=target, rest=rest, admin=admin, keep_awake=keep_awake) as subject,
    ):
        reports = run_on_loop(_loads(subject, selfies, crowd, crowds, offer, protocols))
        compared = _against_fer(subject, selfies, photos or [], turn_s=seconds / 4) if against else None
    if as_json:
        echo_json({"machine": machine, "loads": reports, "against": compared})
        return
    print_loads(reports, machine)
    if compared is not None:
        print_against(compared)


async def _loads(
    subject: "Subject",
    selfies: "Sequence[Work]",
    crowd: "Sequence[Work]",
    crowds: float,
    offer: "Offer",
    protocols: Sequence[ProtocolName],
) -> "list[LoadReport]":
    from ferserve.serving.benchmarks.load import measure_load, with_faces

    mix = mix_of(await with_faces(selfies, subject.target), await with_faces(crowd, subject.target), crowds=crowds)
    return [await measure_load(subject, mix, offer, protocol) for protocol in protocols]


def _against_fer(
    subject: "Subject", selfies: "Sequence[Work]", photos: Sequence[Path], *, turn_s: float
) -> "AgainstReport":
    from ferserve.serving.benchmarks.against import fer_processes, fer_python, measure_against_fer
    from ferserve.serving.benchmarks.load import with_faces

    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "ferserve"
    with fer_processes(fer_python(cache), photos) as fer:

        async def measure() -> "AgainstReport":
            works = await with_faces(selfies, subject.target)
            return await measure_against_fer(subject.target, works, fer, turn_s=turn_s)

        return run_on_loop(measure())
