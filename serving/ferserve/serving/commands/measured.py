"""The gateway that `bench` and `stress` measure, and the flags that say which."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Annotated

import typer

from ferserve.serving.errors import ConfigError

if TYPE_CHECKING:
    from ferserve.serving.benchmarks.gateways import Subject

Target = Annotated[
    str | None, typer.Option(metavar="HOST:PORT", help="A gateway's gRPC port; by default one is started.")
]
Rest = Annotated[str | None, typer.Option(metavar="HOST:PORT", help="The --target's HTTP port.")]
Admin = Annotated[str | None, typer.Option(metavar="HOST:PORT", help="The --target's admin port, for what it counts.")]

KeepAwake = Annotated[
    bool,
    typer.Option(
        "--keep-awake",
        help="Keep this machine's cores from halting meanwhile: virtual ones take milliseconds to wake, which shows "
        "under little load.",
    ),
]


def serve_flags(models: list[str] | None, hashes: list[str] | None, detector: str | None) -> list[str]:
    """The same flags for `ferserve serve`."""
    flags = {"--model": models or [], "--sha256": hashes or [], "--detector": [detector] if detector else []}
    return [f"{flag}={value}" for flag, values in flags.items() for value in values]


@contextmanager
def measured_gateway(
    flags: list[str],
    *,
    target: str | None,
    rest: str | None = None,
    admin: str | None = None,
    keep_awake: bool = False,
) -> "Iterator[Subject]":
    """The gateway at `target`, or one of our own with these flags of `serve` until the block ends.

    Raises:
        ConfigError: flags for a gateway that runs already, or cores that cannot be kept awake.
        StartError: our own does not start.
    """
    from ferserve.serving.benchmarks.awake import cores_awake
    from ferserve.serving.benchmarks.gateways import Subject, own_gateway

    if target is not None and flags:
        raise ConfigError(f"--target: expected none with {flags[0].partition('=')[0]}, got {target}")
    with cores_awake() if keep_awake else nullcontext() as awake:
        if target is not None:
            yield Subject(target=target, rest=rest, admin=f"http://{admin}" if admin else None, awake=awake)
            return
        with own_gateway(flags) as own:
            yield Subject(target=own.target, rest=own.rest, admin=own.admin, own=own, awake=awake)
