"""What a gateway and each kind of request cost, measured on an idle machine: what a plan is made from."""

import asyncio
import json
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, repeat
from pathlib import Path
from typing import Any, Final

import numpy as np
from pydantic import TypeAdapter, ValidationError

from ferserve.serving.benchmarks.gateways import CpuMeter, Subject
from ferserve.serving.benchmarks.generator import Generator
from ferserve.serving.benchmarks.load import asked_once
from ferserve.serving.benchmarks.payloads import CROWD_NAME
from ferserve.serving.benchmarks.simulation import GatewayModel, Kind
from ferserve.serving.benchmarks.transports import GrpcTransport, Work
from ferserve.serving.client import AsyncClient
from ferserve.serving.cores import available_cores
from ferserve.serving.engine import EngineConfig
from ferserve.serving.errors import ConfigError
from ferserve.serving.latency import Line

CROWDING_CALLERS: Final = 4
"""For each core: enough that none of them ever waits for a caller."""
_HTTP_TIMEOUT_S: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class KindCost:
    """One kind of request on a core to itself, as in `Kind`."""

    name: str
    faces: int
    prepare_ms: float
    overhead_ms: float
    after_ms: float = 0.0
    waits_ms: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """All that a plan needs of measurements.

    Attributes:
        cores: of the machine it was measured on.
        crowding: the cores' time for a request while all of them have work, over the CPU time of one alone; cores share
            caches, memory and the interpreter's lock, for which they also wait.
        face_ms, batch_ms: of the worker's latency, face_ms * n + batch_ms.
        caller_ms: of CPU time of a caller here, who asks alone. No part of a plan, whose callers are elsewhere.
        kept_awake: whether cores were kept from halting meanwhile.
    """

    cores: int
    face_ms: float
    batch_ms: float
    kinds: tuple[KindCost, ...]
    crowding: float = 1.0
    caller_ms: float = 0.0
    kept_awake: bool = False

    def line(self) -> Line:
        """The worker's latency."""
        return Line(self.face_ms / 1000, self.batch_ms / 1000)

    def gateway(self, settings: EngineConfig) -> GatewayModel:
        """A gateway of these costs with these settings."""
        is_here = settings.workers.kind == "embedded"
        servers = max(len(settings.workers.endpoints), 1)
        return GatewayModel(
            line=self.line(),
            cores=self.cores,
            crowding=self.crowding,
            threads=settings.analyzer.threads,
            worker_slots=settings.embedded.threads if is_here else settings.workers.concurrency * servers,
            worker_is_here=is_here,
            admission=settings.admission,
            batching=settings.batching,
        )

    def mixed(self, crowds: float, timeout_s: float) -> list[Kind]:
        """The kinds as they are mixed: `crowds` of the requests are crowds, photos share the rest evenly.

        Raises:
            ConfigError: a kind that is asked for was not measured.
        """
        photos = sum(cost.name != CROWD_NAME for cost in self.kinds)
        if (crowds > 0 and photos == len(self.kinds)) or (crowds < 1 and not photos):
            known = ", ".join(cost.name for cost in self.kinds)
            raise ConfigError(f"--crowds: expected a mix of what was measured ({known}), got {crowds:g}")
        shares = [crowds if cost.name == CROWD_NAME else (1 - crowds) / photos for cost in self.kinds]
        return [
            Kind(
                name=cost.name,
                share=share,
                faces=cost.faces,
                prepare_s=cost.prepare_ms / 1000,
                overhead_s=cost.overhead_ms / 1000,
                after_s=cost.after_ms / 1000,
                waits_s=cost.waits_ms / 1000,
                timeout_s=timeout_s,
            )
            for cost, share in zip(self.kinds, shares, strict=True)
            if share > 0
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """On one request, in seconds.

    Attributes:
        gateway_s, caller_s: of CPU time.
        latency_s: median, as the caller sees it.
        cores_s: of all cores that were there for the two, at work or waiting.
    """

    gateway_s: float
    caller_s: float
    latency_s: float
    cores_s: float

    @property
    def cpu_s(self) -> float:
        """Of CPU time in all."""
        return self.gateway_s + self.caller_s


def read_costs(file: Path) -> Costs:
    """Read what `bench plan --json` printed.

    Raises:
        ConfigError: it cannot be read, or holds no costs.
    """
    try:
        return TypeAdapter(Costs).validate_python(json.loads(file.read_text(encoding="utf-8"))["costs"])
    except OSError as error:
        raise ConfigError(f"--costs: {file}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, ValidationError):
        raise ConfigError(f"--costs: expected what `bench plan --json` printed, got something else in {file}") from None


async def measure_costs(subject: Subject, works: Sequence[Work], crops: Sequence[Work], *, each_s: float) -> Costs:
    """Ask for each work for `each_s` seconds one at a time, and for so long with more callers than cores.

    Args:
        subject: a gateway of our own.
        works: whole pictures.
        crops: calls with ready-made crops, of several sizes: they show how a batch's latency grows.
    """
    cores = available_cores()
    assert subject.own is not None
    own = subject.own
    async with Generator(GrpcTransport(own.target)) as generator:
        await generator.connect()
        await generator.keep_busy(cycle(crops), 1, each_s)
        line = await asyncio.to_thread(read_line, own.admin)
        alone = [await _spent(subject, generator, work, 1, each_s) for work in works]
        crowded = [await _spent(subject, generator, work, CROWDING_CALLERS * cores, each_s) for work in works]
    async with AsyncClient(own.target) as client:
        kinds = [
            await _kind_cost(client, work, line, spent, each_s=each_s) for work, spent in zip(works, alone, strict=True)
        ]
    return Costs(
        cores=cores,
        face_ms=line.job_s * 1000,
        batch_ms=line.fixed_s * 1000,
        kinds=tuple(kinds),
        crowding=max(sum(spent.cores_s for spent in crowded) / sum(spent.cpu_s for spent in alone), 1.0),
        caller_ms=1000 * sum(spent.caller_s for spent in alone) / len(works),
        kept_awake=subject.awake is not None,
    )


def read_line(admin: str) -> Line:
    """The latency of the default model's worker, from `/status` of an admin port, http://HOST:PORT."""
    with urllib.request.urlopen(f"{admin}/status", timeout=_HTTP_TIMEOUT_S) as answer:  # noqa: S310 - http, our own
        status: dict[str, Any] = json.loads(answer.read())
    latency = next(model["latency"] for model in status["models"] if model["is_default"])
    return Line(latency["face_ms"] / 1000, latency["batch_ms"] / 1000)


async def _spent(subject: Subject, generator: Generator, work: Work, callers: int, each_s: float) -> Spent:
    """What requests cost where so many callers each wait for their answer."""
    await generator.keep_busy(repeat(work), callers, each_s / 4)  # what is loaded at a first call is no cost of others
    meter, began_s = CpuMeter(subject), time.monotonic()
    exchanges = await generator.keep_busy(repeat(work), callers, each_s)
    shares, cores_s = meter.shares(), available_cores() * (time.monotonic() - began_s) / len(exchanges)
    return Spent(
        gateway_s=shares.gateway * cores_s,
        caller_s=shares.generator * cores_s,
        latency_s=float(np.median([exchange.latency_ms for exchange in exchanges])) / 1000,
        cores_s=(1 - shares.others) * cores_s,
    )


async def _kind_cost(client: AsyncClient, work: Work, line: Line, alone: Spent, *, each_s: float) -> KindCost:
    prepared_ms: list[float] = []
    faces: list[int] = []
    began_s = time.monotonic()
    while time.monotonic() - began_s < each_s:
        answer = await asked_once(client, work)
        timings = answer.timings
        prepared_ms.append(timings.decode_ms + timings.detect_ms + timings.preprocess_ms)
        faces.append(len(answer.faces))
    scored_ms = 1000 * line.batches_s(faces[0], 1) if faces[0] else 0.0
    return kind_cost(work.name, faces[0], prepared_ms=float(np.median(prepared_ms)), scored_ms=scored_ms, alone=alone)


def kind_cost(name: str, faces: int, *, prepared_ms: float, scored_ms: float, alone: Spent) -> KindCost:
    """Divide the CPU time of a request alone by what its stages took on the clock.

    Args:
        prepared_ms, scored_ms: on the clock; where others compute too, time passes and no work is done.
    """
    rest_ms = max(1000 * alone.gateway_s - scored_ms, 0.0)
    prepare_ms = min(prepared_ms, rest_ms)
    overhead_ms = rest_ms - prepare_ms
    beside_ms = 1000 * (alone.cpu_s - alone.latency_s)  # computed and not waited for, or the reverse
    return KindCost(
        name=name,
        faces=faces,
        prepare_ms=prepare_ms,
        overhead_ms=overhead_ms,
        after_ms=min(max(beside_ms, 0.0), overhead_ms),
        waits_ms=max(-beside_ms, 0.0),
    )
