"""`ferserve bench efficiency`: a gateway's photos a second over those of the same pipeline in one's own process."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from ferserve.serving.commands.bench_options import run_on_loop
from ferserve.serving.commands.figures import echo_json, estimate_text, machine_line, number_text, report_console
from ferserve.serving.commands.measured import serve_flags
from ferserve.serving.commands.options import AsJson, DetectorName, Hashes, Models, models_section

if TYPE_CHECKING:
    from ferserve.serving.benchmarks.efficiency import EfficiencyConfig, EfficiencyReport
    from ferserve.serving.benchmarks.gateways import OwnGateway
    from ferserve.serving.benchmarks.transports import Work
    from ferserve.serving.engine import EngineConfig


def efficiency(
    picture: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A picture with a face.")],
    *,
    callers: Annotated[int, typer.Option(min=1, max=64, help="Who each wait for their answer.")] = 8,
    turns: Annotated[int, typer.Option(min=1, help="Of each side.")] = 4,
    seconds: Annotated[float, typer.Option(min=4.0, help="Of a turn; its first quarter is not counted.")] = 8.0,
    model: Models = None,
    sha256: Hashes = None,
    detector: DetectorName = None,
    as_json: AsJson = False,
) -> None:
    """Analyse one picture again and again, in this process (on threads) and over gRPC in turn.

    Callers and gateway share this machine, so what the callers take is part of the gateway's loss; it is reported.
    """
    import os

    from ferserve.serving.allocator import return_large_buffers
    from ferserve.serving.benchmarks.efficiency import EfficiencyConfig
    from ferserve.serving.benchmarks.gateways import own_gateway
    from ferserve.serving.benchmarks.payloads import photo_work
    from ferserve.serving.benchmarks.stages import describe_machine
    from ferserve.serving.cores import switch_often
    from ferserve.serving.engine import EngineConfig
    from ferserve.serving.requests import AnalyzeOptions
    from ferserve.serving.settings import read_settings

    work = photo_work(picture.name, picture.read_bytes(), AnalyzeOptions(), 60.0)
    config = EfficiencyConfig(callers=callers, turns=turns, turn_s=seconds)
    machine = describe_machine()
    flags: dict[str, dict[str, Any]] = {
        "models": models_section(model, sha256, detector, None),
        "analyzer": {"preparation": "threads"},
    }
    engine = read_settings(EngineConfig, file=None, environ=os.environ, flags=flags)
    return_large_buffers()  # as the gateway does both
    switch_often()
    with (
        Console(stderr=True).status("measuring"),
        own_gateway(serve_flags(model, sha256, detector)) as gateway,
    ):
        report = run_on_loop(_measure(engine, gateway, work, config))
    if as_json:
        echo_json({"machine": machine, "efficiency": report})
        return
    console = report_console()
    inside, outside = report.in_process, report.over_grpc
    console.print(f"{callers} callers, photos a second: in process {estimate_text(inside.photos_per_s)}, over gRPC")
    console.print(f"  {estimate_text(outside.photos_per_s)}: {estimate_text(report.efficiency, 2)} of it")
    console.print(
        f"CPU ms a photo: in process {number_text(inside.cpu_ms_per_photo, 1)}, "
        f"gateway {number_text(outside.cpu_ms_per_photo, 1)}, "
        f"its callers {number_text(report.generator_cpu_ms_per_photo, 1)}"
    )
    console.print(machine_line(machine), markup=False)


async def _measure(
    engine_config: "EngineConfig", gateway: "OwnGateway", work: "Work", config: "EfficiencyConfig"
) -> "EfficiencyReport":
    from ferserve.serving.benchmarks.efficiency import measure_efficiency
    from ferserve.serving.engine import open_archives, running_engine
    from ferserve.serving.metrics import Metrics

    async with running_engine(engine_config, open_archives(engine_config.models), Metrics()) as engine:
        return await measure_efficiency(engine.analyzer, gateway, work, config)
