"""`ferserve stress`: how a gateway bears more than it can do, crowds, and SIGTERM; measured here and now."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Console

from ferserve.serving.commands.measured import Admin, KeepAwake, Target, measured_gateway, serve_flags
from ferserve.serving.commands.options import AsJson, DetectorName, Hashes, Models
from ferserve.serving.errors import ConfigError

if TYPE_CHECKING:
    from ferserve.serving.benchmarks.drain import DrainReport
    from ferserve.serving.benchmarks.fairness import FairnessReport
    from ferserve.serving.benchmarks.gateways import Subject
    from ferserve.serving.benchmarks.overload import OverloadReport
    from ferserve.serving.benchmarks.payloads import Payloads

MIN_SECONDS: Final = 4.0


class Question(StrEnum):
    """What is asked of the gateway."""

    OVERLOAD = "overload"
    FAIRNESS = "fairness"
    DRAIN = "drain"


class Rpc(StrEnum):
    """What the requests are."""

    ANALYZE = "analyze"
    CLASSIFY = "classify"


def stress(
    question: Annotated[Question, typer.Argument(help="Up to 3 times its capacity; crowds beside selfies; SIGTERM.")],
    picture: Annotated[
        Path | None,
        typer.Argument(exists=True, dir_okay=False, help="A picture with a face; synthetic noise by default."),
    ] = None,
    *,
    target: Target = None,
    admin: Admin = None,
    model: Models = None,
    sha256: Hashes = None,
    detector: DetectorName = None,
    rpc: Annotated[Rpc, typer.Option(help="Whole pictures, or ready-made crops of a face.")] = Rpc.ANALYZE,
    crops: Annotated[int, typer.Option(min=1, max=512, help="Crops in one request of classify.")] = 8,
    side: Annotated[
        int | None, typer.Option(min=64, help="Bring the picture's longer side down to this many pixels first.")
    ] = None,
    crowd_side: Annotated[
        int, typer.Option(min=640, max=4096, help="Longer side of a crowd's picture, and of its detection.")
    ] = 640,
    deadline_ms: Annotated[int, typer.Option(min=1, help="Of each request; crowds have 10 s.")] = 2000,
    seconds: Annotated[
        float, typer.Option(min=MIN_SECONDS, help="Of each level of overload, turn of fairness, half of a drain.")
    ] = 20.0,
    seed: Annotated[int, typer.Option(min=0, help="Of the arrivals.")] = 1,
    keep_awake: KeepAwake = False,
    as_json: AsJson = False,
) -> None:
    """Offer a gateway requests at random times drawn beforehand, never waiting for answers, and see how it bears them.

    Generator and gateway share this machine unless --target is elsewhere; their parts of its CPU time are reported.
    """
    import uvloop

    from ferserve.serving.benchmarks.payloads import Payloads
    from ferserve.serving.benchmarks.stages import describe_machine, synthetic_picture
    from ferserve.serving.commands.figures import echo_json, plain
    from ferserve.serving.commands.stress_report import print_report

    payloads = Payloads(
        synthetic_picture() if picture is None else picture.read_bytes(),
        crops=crops if rpc is Rpc.CLASSIFY else None,
        side_px=side,
        crowd_side_px=crowd_side,
        timeout_s=deadline_ms / 1000,
    )
    machine = describe_machine() | {"kept_awake": keep_awake}
    with (
        Console(stderr=True).status("measuring"),
        _subject(question, target, admin, serve_flags(model, sha256, detector), keep_awake=keep_awake) as subject,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        report = runner.run(_measure(question, subject, payloads, seconds, seed))
    if as_json:
        echo_json({"question": question, "machine": machine, **plain(report)})
    else:
        print_report(report, machine)


async def _measure(
    question: Question, subject: "Subject", payloads: "Payloads", seconds: float, seed: int
) -> "OverloadReport | FairnessReport | DrainReport":
    from ferserve.serving.benchmarks.drain import DrainConfig, measure_drain
    from ferserve.serving.benchmarks.fairness import FairnessConfig, measure_fairness
    from ferserve.serving.benchmarks.overload import OverloadConfig, measure_overload

    match question:
        case Question.OVERLOAD:
            return await measure_overload(subject, payloads.work(), OverloadConfig(level_s=seconds, seed=seed))
        case Question.FAIRNESS:
            fairness = FairnessConfig(turn_s=seconds, seed=seed)
            return await measure_fairness(subject, payloads.selfie(), payloads.crowd(), fairness)
        case Question.DRAIN:
            assert subject.own is not None
            drain = DrainConfig(before_s=seconds / 2, after_s=seconds / 2, seed=seed)
            return await measure_drain(subject.own, payloads.work(), drain)


@contextmanager
def _subject(
    question: Question, target: str | None, admin: str | None, flags: list[str], *, keep_awake: bool
) -> "Iterator[Subject]":
    if question is Question.DRAIN and target is not None:
        raise ConfigError(f"--target: expected none with drain, which stops the gateway, got {target}")
    with measured_gateway(flags, target=target, admin=admin, keep_awake=keep_awake) as subject:
        yield subject
