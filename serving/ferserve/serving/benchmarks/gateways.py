"""The gateway that is measured: one of our own in another process, or one that runs already."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import nan
from pathlib import Path
from typing import IO, Any, Final

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from ferserve.serving.benchmarks.awake import AwakeCores
from ferserve.serving.cores import available_cores
from ferserve.serving.errors import StartError
from ferserve.serving.process_family import PeakMemory, cpu_s, memory_bytes

_START: Final = "from ferserve.serving.cli import main; main()"
_ADDRESSES: Final = ("gRPC", "REST", "admin")
_FREE_PORTS: Final = ("--grpc-port=0", "--http-port=0", "--admin-port=0")
_STOP_TIMEOUT_S: Final = 60.0
_HTTP_TIMEOUT_S: Final = 10.0
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_MIB: Final = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """What the gateway itself counts, since it started.

    Attributes:
        faces_computed: that entered a batch.
        faces_answered: that an answer held.
        expired: pictures and faces dropped before computation because their deadline had passed.
        batches: largest number of faces of each bucket of the histogram, and how many batches it and those below hold.
    """

    faces_computed: float
    faces_answered: float
    expired: float
    batches: tuple[tuple[float, float], ...] = ()

    def since(self, before: "Counters") -> "Counters":
        """What was counted in between."""
        return Counters(
            faces_computed=self.faces_computed - before.faces_computed,
            faces_answered=self.faces_answered - before.faces_answered,
            expired=self.expired - before.expired,
            batches=tuple(
                (most, count - then) for (most, count), (_, then) in zip(self.batches, before.batches, strict=True)
            ),
        )


UNKNOWN: Final = Counters(faces_computed=nan, faces_answered=nan, expired=nan)


def read_counters(admin: str) -> Counters:
    """Read `/metrics` of an admin port, http://HOST:PORT."""
    with urllib.request.urlopen(f"{admin}/metrics", timeout=_HTTP_TIMEOUT_S) as answer:  # noqa: S310 - http, the user's own
        text = answer.read().decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]

    def total(name: str, **labels: str) -> float:
        wanted = labels.items()
        return sum(sample.value for sample in samples if sample.name == name and wanted <= sample.labels.items())

    return Counters(
        faces_computed=total("ferserve_batch_faces_sum"),
        faces_answered=total("ferserve_faces_total"),
        expired=total("ferserve_dropped_before_compute_total", cause="expired"),
        batches=_histogram(samples, "ferserve_batch_faces_bucket"),
    )


def _histogram(samples: Iterable[Sample], name: str) -> tuple[tuple[float, float], ...]:
    """The cumulative counts of a histogram by upper bound, over all its labels."""
    counts: dict[float, float] = {}
    for sample in samples:
        if sample.name == name:
            most = float(sample.labels["le"])
            counts[most] = counts.get(most, 0.0) + sample.value
    return tuple(sorted(counts.items()))


class OwnGateway:
    """`ferserve serve` in a process of its own on free loopback ports; see `own_gateway`."""

    def __init__(self, process: subprocess.Popen[str], addresses: dict[str, str], logs: IO[str]) -> None:
        self._process = process
        self._logs = logs
        self.target = addresses["gRPC"]
        self.rest = addresses["REST"].removeprefix("http://")
        self.admin = addresses["admin"]

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def cpu_s(self) -> float:
        """Seconds of CPU time that it has used so far, with all processes of its own."""
        return cpu_s(self._process.pid)

    def memory_mib(self) -> float:
        """The memory that it holds, with all processes of its own; what they share counts once."""
        return memory_bytes(self._process.pid) / _MIB

    def peak_memory(self) -> PeakMemory:
        """Watches the same from now on."""
        return PeakMemory(self._process.pid)

    def tell_to_stop(self) -> None:
        """Send SIGTERM."""
        self._process.send_signal(signal.SIGTERM)

    def ended(self) -> int:
        """Wait for its end; its exit code."""
        return self._process.wait(_STOP_TIMEOUT_S)

    def logged(self, message: str) -> dict[str, Any]:
        """The first record with this message that it logged."""
        self._logs.seek(0)
        records = (json.loads(line) for line in self._logs if line.startswith("{"))
        return next(record for record in records if record["message"] == message)


@contextmanager
def own_gateway(arguments: Sequence[str] = ()) -> Iterator[OwnGateway]:
    """Run a gateway until the block ends.

    Args:
        arguments: of `ferserve serve`; settings also come from the environment, as always.
    Raises:
        StartError: it ended before it was ready.
    """
    with tempfile.TemporaryFile("w+") as logs:
        process = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-c", _START, "serve", *_FREE_PORTS, *arguments],
            stdout=subprocess.PIPE,
            stderr=logs,
            text=True,
            env=os.environ | {"FERSERVE_LOG__FORMAT": "json", "FERSERVE_LOG__LEVEL": "info"},
        )
        try:
            yield OwnGateway(process, _announced(process, logs), logs)
        finally:
            process.terminate()
            _wait_or_kill(process)


def _announced(process: subprocess.Popen[str], logs: IO[str]) -> dict[str, str]:
    assert process.stdout is not None
    addresses: dict[str, str] = {}
    while not addresses.keys() >= set(_ADDRESSES):
        line = process.stdout.readline()
        if not line:
            code = process.wait()
            logs.seek(0)
            raise StartError(f"the gateway ended with {code} before it was ready: {logs.read().strip()}")
        name, _, address = line.strip().partition(" ")
        addresses[name] = address
    return addresses


def _wait_or_kill(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    try:
        process.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """The gateway under measurement.

    Attributes:
        target: HOST:PORT of its gRPC port.
        rest: HOST:PORT of its HTTP port; None where nobody said.
        admin: http://HOST:PORT of its admin port; None where nobody said.
        own: its process; None where somebody else runs it.
        awake: what keeps the cores from halting meanwhile; None where nothing does.
    """

    target: str
    rest: str | None = None
    admin: str | None = None
    own: OwnGateway | None = None
    awake: AwakeCores | None = None

    def counters(self) -> Counters:
        """What it counts; NaN where there is no admin port."""
        return read_counters(self.admin) if self.admin else UNKNOWN


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuShares:
    """Of the machine's CPU time, from 0 to 1; NaN where not known.

    Attributes:
        others: what the rest of the machine used, or was not given by its host.
    """

    generator: float
    gateway: float
    others: float = nan


class CpuMeter:
    """How much of the machine the generator (this process) and the gateway use from now on."""

    def __init__(self, subject: Subject) -> None:
        self._own = subject.own
        self._awake = subject.awake
        self._began = self._now()

    def shares(self) -> CpuShares:
        """Since the beginning."""
        wall_s, generator_s, gateway_s, busy = (now - then for now, then in zip(self._now(), self._began, strict=True))
        cores_s = wall_s * available_cores()
        generator, gateway = generator_s / cores_s, gateway_s / cores_s
        others = max(busy / (wall_s * _TICKS_PER_S * (os.cpu_count() or 1)) - generator - gateway, 0.0)
        return CpuShares(generator=generator, gateway=gateway, others=others)

    def gateway_s(self) -> float:
        """Seconds of CPU time that the gateway used; NaN unless it is our own."""
        return self._now()[2] - self._began[2]

    def _now(self) -> tuple[float, float, float, float]:
        gateway_s = self._own.cpu_s() if self._own else nan
        awake_s = self._awake.cpu_s() if self._awake else 0.0
        return time.monotonic(), time.process_time(), gateway_s, _busy_ticks() - awake_s * _TICKS_PER_S


def _busy_ticks() -> float:
    """Of all cores together; of Linux's count, all but idle and waiting for a disk."""
    user, nice, system, _idle, _wait, *rest = map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9])
    return user + nice + system + sum(rest)
