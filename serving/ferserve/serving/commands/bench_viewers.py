"""`ferserve bench viewers`: live streams side by side, and how fairly a gateway serves them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from ferserve.serving.commands.bench_options import run_on_loop
from ferserve.serving.commands.figures import echo_json, machine_line, number_text, report_console
from ferserve.serving.commands.options import AsJson, DetectorName, Hashes, Models

if TYPE_CHECKING:
    from ferserve.serving.benchmarks.viewers import ViewersReport


def viewers(
    picture: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A picture with a face.")],
    *,
    count: Annotated[int, typer.Option("--viewers", min=1, max=64, help="Live streams side by side.")] = 10,
    faces: Annotated[int, typer.Option(min=1, max=64, help="Faces in a frame of 640 x 480.")] = 4,
    rate: Annotated[float, typer.Option(min=0.1, max=120, help="Frames that each viewer sends a second.")] = 30.0,
    seconds: Annotated[float, typer.Option(min=1, help="Of looking on, after two seconds of warming up.")] = 20.0,
    model: Models = None,
    sha256: Hashes = None,
    detector: DetectorName = None,
    as_json: AsJson = False,
) -> None:
    """Start a gateway, open live streams as the page does, and count what each viewer sees.

    Gateway and viewers share this machine; a viewer sends ready-made frames, so that it costs little.
    """
    from ferserve.faces.detectors import default_detector
    from ferserve.serving.benchmarks.gateways import own_gateway
    from ferserve.serving.benchmarks.payloads import best_face
    from ferserve.serving.benchmarks.realtime import frame_with
    from ferserve.serving.benchmarks.viewers import measure_viewers

    pixels, box = best_face(picture.read_bytes(), default_detector())
    frame = frame_with(pixels, box, faces)
    flags = {"--model": model or [], "--sha256": sha256 or [], "--detector": [detector] if detector else []}
    arguments = [f"{flag}={value}" for flag, values in flags.items() for value in values]
    with Console(stderr=True).status("measuring"), own_gateway(arguments) as gateway:
        work = measure_viewers(gateway, frame, faces=faces, viewers=count, rate=rate, seconds=seconds)
        report = run_on_loop(work)
    if as_json:
        echo_json(report)
    else:
        _print(report)


def _print(report: "ViewersReport") -> None:
    seen = report.frames_s
    console = report_console()
    console.print(f"{report.viewers} viewers, {report.rate:g} frames/s each, {report.faces} faces a frame")
    console.print(
        f"seen by one: {seen[0]:.1f} to {seen[-1]:.1f} frames/s, {sum(seen):.1f} together; fairness {report.jain:.3f}"
    )
    ages = f"{number_text(report.median_ms, 1)} ms, p99 {number_text(report.p99_ms, 1)} ms"
    console.print(
        f"age of an answer: median {ages}; given up for newer ones {report.dropped:.0%}, failed {report.failed}"
    )
    console.print(f"gateway: {report.gateway_cpu:.2f} cores", markup=False)
    console.print(machine_line(report.machine), markup=False)
