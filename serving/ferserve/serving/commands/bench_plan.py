"""`ferserve bench plan`: how many gateways a load needs to keep a promise."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Console

from ferserve.serving.commands.bench_options import (
    CROWD_SIDE_PX,
    CrowdFaces,
    Crowds,
    DeadlineMs,
    Photos,
    Seed,
    mix_of,
    run_on_loop,
    works_of,
)
from ferserve.serving.commands.measured import KeepAwake, measured_gateway, serve_flags
from ferserve.serving.commands.options import AsJson, DetectorName, Hashes, Models
from ferserve.serving.errors import ConfigError

if TYPE_CHECKING:
    from ferserve.serving.benchmarks.costs import Costs
    from ferserve.serving.benchmarks.gateways import Subject
    from ferserve.serving.benchmarks.plan_checks import Check
    from ferserve.serving.benchmarks.planning import Slo
    from ferserve.serving.engine import EngineConfig

CROP_SIZES: Final = (1, 2, 3, 4, 1, 4)
"""Crops in one call while a worker's latency is learnt; more would be spread over its slots."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """What is to be planned for, whatever the costs are."""

    crowds: float
    deadline_ms: int
    seconds: float
    seed: int
    keep_awake: bool


def plan(
    photos: Photos = None,
    *,
    rate: Annotated[float, typer.Option(min=0.01, help="Requests a second in all.")],
    slo_ms: Annotated[float, typer.Option(min=1, help="The promise: an answer within so many ms ...")] = 500.0,
    slo_share: Annotated[float, typer.Option(min=0.01, max=0.9999, help="... for this share of all requests.")] = 0.99,
    crowds: Crowds = 0.0,
    crowd_faces: CrowdFaces = 25,
    deadline_ms: DeadlineMs = 2000,
    seconds: Annotated[float, typer.Option(min=4.0, help="Of each measurement.")] = 8.0,
    seed: Seed = 1,
    costs: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Plan from what an earlier --json printed; nothing is measured.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Put three loads on one gateway and compare with what is foreseen.")
    ] = False,
    model: Models = None,
    sha256: Hashes = None,
    detector: DetectorName = None,
    keep_awake: KeepAwake = False,
    as_json: AsJson = False,
) -> None:
    """Find out how many gateways like this one keep a promise under a load.

    What a photo, a crowd and a batch cost is measured on a gateway of our own, which should have the machine to itself.
    The load is simulated with the gateway's own admission, queues and batching, in virtual time.
    """
    from ferserve.serving.benchmarks.costs import Planned, read_costs
    from ferserve.serving.benchmarks.planning import Slo, plan_replicas
    from ferserve.serving.commands.bench_report import print_plan
    from ferserve.serving.commands.figures import echo_json
    from ferserve.serving.config import ServeConfig
    from ferserve.serving.settings import read_settings

    slo = Slo(latency_s=slo_ms / 1000, share=slo_share)
    asked = _Asked(crowds=crowds, deadline_ms=deadline_ms, seconds=seconds, seed=seed, keep_awake=keep_awake)
    known = None if costs is None else read_costs(costs)
    if known is not None and (photos or check or model or detector or keep_awake):
        raise ConfigError(
            "--costs: expected no photos, --check, --model, --detector or --keep-awake beside it: nothing is measured"
        )
    settings = read_settings(ServeConfig, file=None, environ=os.environ, flags={})
    checks: list[Check] = []
    with Console(stderr=True).status("measuring and simulating"):
        if known is None:
            flags = serve_flags(model, sha256, detector)
            known, checks = _measured(photos, crowd_faces, flags, settings, asked, slo if check else None)
        planned = Planned(
            costs=known, settings=settings, crowds=crowds, timeout_s=deadline_ms / 1000, cores=known.cores
        )
        found = plan_replicas(planned.at, rate_per_s=rate, slo=slo, seed=seed)
    if as_json:
        echo_json({"costs": known, "plan": found, "checks": checks})
    else:
        print_plan(known, found, checks)


def _measured(
    photos: Sequence[Path] | None,
    crowd_faces: int,
    flags: list[str],
    settings: "EngineConfig",
    asked: _Asked,
    check: "Slo | None",
) -> "tuple[Costs, list[Check]]":
    """Measure a gateway of our own, and check the plan on it if there is a promise to check with."""
    from ferserve.serving.benchmarks.payloads import Payloads

    works, crowd = works_of(photos, crowds=asked.crowds, crowd_faces=crowd_faces, deadline_ms=asked.deadline_ms)
    if not photos:
        raise ConfigError("photos: expected at least one with a face, or --costs, got none")
    data, timeout_s = photos[0].read_bytes(), asked.deadline_ms / 1000
    crops = [
        Payloads(data, crops=size, side_px=None, crowd_side_px=CROWD_SIDE_PX, timeout_s=timeout_s).work()
        for size in CROP_SIZES
    ]

    async def measure(subject: "Subject") -> "tuple[Costs, list[Check]]":
        from ferserve.serving.benchmarks.cost_measuring import ROUNDS, cost_meter
        from ferserve.serving.benchmarks.costs import Planned
        from ferserve.serving.benchmarks.load import with_faces
        from ferserve.serving.benchmarks.plan_checks import check_plan

        async with cost_meter(subject, [*works, *crowd], crops, settings, each_s=asked.seconds) as meter:
            await meter.measure(ROUNDS)
            known = await meter.costs()
            if check is None:
                return known, []
            mix = mix_of(
                await with_faces(works, subject.target), await with_faces(crowd, subject.target), crowds=asked.crowds
            )
            planned = Planned(
                costs=known, settings=settings, crowds=asked.crowds, timeout_s=timeout_s, cores=known.cores
            )
            return await check_plan(subject, mix, planned, meter, each_s=asked.seconds, slo=check, seed=asked.seed)

    with measured_gateway(flags, target=None, keep_awake=asked.keep_awake) as subject:
        return run_on_loop(measure(subject))
