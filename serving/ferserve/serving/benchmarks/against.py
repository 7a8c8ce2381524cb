"""The gateway against `fer`, the Python package that people use for this today: the same photos, one run, in turns.

`fer` is called in its own process as its users call it; the gateway is asked over gRPC, network and all. Both decode.
One at a time, and as much as either can: `fer` in as many processes as there are cores.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any, Final

import numpy as np

from ferserve.serving.benchmarks.estimates import Estimate, Samples, estimate, mean, quantile, ratio
from ferserve.serving.benchmarks.exchanges import Ending, Exchange
from ferserve.serving.benchmarks.generator import Generator
from ferserve.serving.benchmarks.transports import GrpcTransport, Work
from ferserve.serving.cores import available_cores
from ferserve.serving.errors import StartError

FER_VERSION: Final = "25.10.3"
# Of what it names, the command line of videos and a second detector that needs torch are left out: nothing here calls
# them. It reads its model by pkg_resources, which setuptools no longer brings.
REQUIREMENTS: Final = (
    "tensorflow-cpu==2.20.*",
    "opencv-python-headless>=4.10,<5",
    "pandas",
    "pillow",
    "requests",
    "setuptools<81",
    "tqdm",
)
ROUNDS: Final = 4
CALLERS_A_CORE: Final = 4
_PEER: Final = Path(__file__).with_name("fer_peer.py")


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """What one of the two did.

    Attributes:
        photos_per_s: in all.
        p50_ms: of one photo.
        faces_per_photo: that it found.
    """

    photos_per_s: Estimate
    p50_ms: Estimate
    faces_per_photo: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Both at one load.

    Attributes:
        load: in words.
        times_the_photos: photos a second of the gateway over those of `fer`.
    """

    load: str
    gateway: Side
    fer: Side
    times_the_photos: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class AgainstReport:
    """Both comparisons."""

    fer_version: str
    one_at_a_time: Comparison
    all_it_can: Comparison


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What one side did in one turn."""

    times_ms: Samples
    faces: int
    took_s: float

    @property
    def photos_per_s(self) -> float:
        """All of the turn's."""
        return len(self.times_ms) / self.took_s

    @property
    def faces_per_s(self) -> float:
        """What was found, whether it is a face or not."""
        return self.faces / self.took_s


def fer_python(cache: Path) -> Path:
    """The interpreter of an environment that has `fer`; made now if it is not there, which takes minutes and network.

    Raises:
        StartError: it cannot be made; says what pip said.
    """
    folder = cache / f"fer-{FER_VERSION}"
    python, ready = folder / "bin" / "python", folder / ".ready"
    if ready.exists():
        return python
    steps = (
        [sys.executable, "-m", "venv", "--clear", str(folder)],
        [str(python), "-m", "pip", "install", "--quiet", "--no-deps", f"fer=={FER_VERSION}"],
        [str(python), "-m", "pip", "install", "--quiet", *REQUIREMENTS],
    )
    for step in steps:
        done = subprocess.run(step, capture_output=True, text=True, check=False)  # noqa: S603 - our own command lines
        if done.returncode:
            raise StartError(f"no environment for fer: {' '.join(step[1:4])} said {done.stderr.strip()[-400:]}")
    ready.touch()
    return python


class FerProcesses:
    """Interpreters that have `fer` loaded; see `fer_processes`."""

    def __init__(self, processes: Sequence[subprocess.Popen[str]]) -> None:
        self._processes = processes
        for process in processes:
            _heard(process)  # that it is ready

    def turn(self, seconds: float, *, processes: int) -> Turn:
        """Let so many of them analyse side by side."""
        chosen = self._processes[:processes]
        for process in chosen:
            assert process.stdin is not None
            process.stdin.write(f"{seconds}\n")
            process.stdin.flush()
        told = [_heard(process) for process in chosen]
        return Turn(
            times_ms=np.concatenate([np.array(one["times_ms"]) for one in told]),
            faces=sum(one["faces"] for one in told),
            took_s=max(one["took_s"] for one in told),
        )


@contextmanager
def fer_processes(python: Path, photos: Sequence[Path]) -> Iterator[FerProcesses]:
    """As many interpreters as there are cores, each with `fer` warmed up, until the block ends.

    Raises:
        StartError: one ended.
    """
    quiet = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    command = [str(python), "-W", "ignore", str(_PEER), *map(str, photos)]
    processes = [
        subprocess.Popen(  # noqa: S603 - our own program
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=quiet
        )
        for _ in range(available_cores())
    ]
    try:
        yield FerProcesses(processes)
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def _heard(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise StartError(f"fer ended with {process.wait()}")
    told: dict[str, Any] = json.loads(line)
    return told


async def measure_against_fer(target: str, works: Sequence[Work], fer: FerProcesses, *, turn_s: float) -> AgainstReport:
    """Let the gateway and `fer` take turns on the same photos.

    Args:
        works: the photos, with the faces that the gateway finds in each.
    """
    cores = available_cores()
    async with Generator(GrpcTransport(target)) as generator:
        await generator.connect()
        return AgainstReport(
            fer_version=FER_VERSION,
            one_at_a_time=await _compared(generator, works, fer, callers=1, processes=1, turn_s=turn_s),
            all_it_can=await _compared(
                generator, works, fer, callers=CALLERS_A_CORE * cores, processes=cores, turn_s=turn_s
            ),
        )


async def _compared(
    generator: Generator, works: Sequence[Work], fer: FerProcesses, *, callers: int, processes: int, turn_s: float
) -> Comparison:
    ours: list[Turn] = []
    theirs: list[Turn] = []
    for _ in range(ROUNDS):  # in turns, so that a machine that changes its speed changes it for both
        ours.append(_turn_of(await generator.keep_busy(cycle(works), callers, turn_s)))
        theirs.append(fer.turn(turn_s, processes=processes))
    return Comparison(
        load=f"{_counted(callers, 'caller')}, fer in {_counted(processes, 'process')}",
        gateway=_side(ours),
        fer=_side(theirs),
        times_the_photos=ratio(_rates(ours), _rates(theirs), mean),
    )


def _counted(number: int, noun: str) -> str:
    plural = "es" if noun.endswith("s") else "s"
    return f"{number} {noun}{'' if number == 1 else plural}"


def _turn_of(exchanges: Sequence[Exchange]) -> Turn:
    answered = [exchange for exchange in exchanges if exchange.ending is Ending.OK]
    return Turn(
        times_ms=np.array([exchange.latency_ms for exchange in answered]),
        faces=sum(exchange.faces for exchange in answered),
        took_s=max(exchange.done_s for exchange in exchanges),
    )


def _rates(turns: Sequence[Turn]) -> list[Samples]:
    return [np.array([turn.photos_per_s]) for turn in turns]


def _side(turns: Sequence[Turn]) -> Side:
    photos = sum(len(turn.times_ms) for turn in turns)
    return Side(
        photos_per_s=estimate(_rates(turns), mean),
        p50_ms=estimate([turn.times_ms for turn in turns], quantile(0.5)),
        faces_per_photo=sum(turn.faces for turn in turns) / photos if photos else float("nan"),
    )
