"""What a gateway and each kind of request cost: what a plan is made from.

A request costs more after a pause. Cores that were idle have other work's memory in their caches, a virtual one has
halted, and all that is woken for the request is woken from sleep; one that follows on another finds all of it warm. So
each kind is known back to back and after pauses of several lengths, and in between it is taken to change evenly with
their length (docs/adr/0107-a-request-costs-more-after-a-pause.md).
"""

import json
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

from ferserve.serving.benchmarks.payloads import CROWD_NAME
from ferserve.serving.benchmarks.planning import Served
from ferserve.serving.benchmarks.simulation import GatewayModel, Kind
from ferserve.serving.engine import EngineConfig
from ferserve.serving.errors import ConfigError
from ferserve.serving.latency import Line

ONE_BATCH_FACES: Final = 4
"""A request of so many faces is scored in one batch, so its time on the clock is that batch's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stages:
    """What one request takes of a core to itself, as in `Kind`, after pauses of one length.

    Attributes:
        idle_ms: before each on average, while no other was being answered.
        scored_ms: on the clock, by the worker; in as many batches as it was.
    """

    idle_ms: float
    prepare_ms: float
    overhead_ms: float
    after_ms: float = 0.0
    waits_ms: float = 0.0
    scored_ms: float = 0.0

    def towards(self, other: "Stages", share: float) -> "Stages":
        """A point on the straight line between the two, from this one at 0 to the other at 1."""
        pairs = {each.name: (getattr(self, each.name), getattr(other, each.name)) for each in fields(self)}
        return Stages(**{name: mine + share * (theirs - mine) for name, (mine, theirs) in pairs.items()})


@dataclass(frozen=True, slots=True, kw_only=True)
class KindCost:
    """One kind of request.

    Attributes:
        stages: after pauses of different length, by it, at least one; the first from a caller who never pauses.
    """

    name: str
    faces: int
    stages: tuple[Stages, ...]

    def at(self, idle_ms: float) -> Stages:
        """After such pauses. Beyond the longest nothing is known, and taken to stay as it is there."""
        shorter = [each for each in self.stages if each.idle_ms <= idle_ms]
        longer = [each for each in self.stages if each.idle_ms > idle_ms]
        if not (shorter and longer):
            return shorter[-1] if shorter else longer[0]
        before, after = shorter[-1], longer[0]
        return before.towards(after, (idle_ms - before.idle_ms) / (after.idle_ms - before.idle_ms))


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """All that a plan needs of measurements.

    Attributes:
        cores: of the machine it was measured on.
        crowding, unevenness: as in `GatewayModel`.
        face_ms, batch_ms: of the worker's latency, face_ms * n + batch_ms, where nothing but batches is asked for.
        caller_ms: of CPU time of a caller here, who asks back to back. No part of a plan, whose callers are elsewhere.
        kept_awake: whether cores were kept from halting meanwhile.
    """

    cores: int
    face_ms: float
    batch_ms: float
    kinds: tuple[KindCost, ...]
    crowding: float = 1.0
    unevenness: float = 0.0
    caller_ms: float = 0.0
    kept_awake: bool = False

    def line(self, idle_ms: float) -> Line:
        """The worker's latency after such pauses.

        What a batch takes longer amid photos, and after a pause, is its weights and its thread being cold: once a
        batch, however many faces.
        """
        colder_ms = [
            kind.at(idle_ms).scored_ms - (self.face_ms * kind.faces + self.batch_ms)
            for kind in self.kinds
            if 0 < kind.faces <= ONE_BATCH_FACES
        ]
        beside_ms = max(sum(colder_ms) / len(colder_ms), 0.0) if colder_ms else 0.0
        return Line(self.face_ms / 1000, (self.batch_ms + beside_ms) / 1000)

    def gateway(self, settings: EngineConfig, idle_ms: float = 0.0) -> GatewayModel:
        """A gateway of these costs with these settings."""
        is_here = settings.workers.kind == "embedded"
        servers = max(len(settings.workers.endpoints), 1)
        return GatewayModel(
            line=self.line(idle_ms),
            cores=self.cores,
            crowding=self.crowding,
            unevenness=self.unevenness,
            threads=settings.analyzer.threads,
            worker_slots=settings.embedded.threads if is_here else settings.workers.concurrency * servers,
            worker_is_here=is_here,
            admission=settings.admission,
            batching=settings.batching,
        )

    def shares(self, crowds: float) -> dict[str, float]:
        """The kinds as they are mixed: `crowds` of the requests are crowds, photos share the rest evenly.

        Raises:
            ConfigError: a kind that is asked for was not measured.
        """
        photos = sum(cost.name != CROWD_NAME for cost in self.kinds)
        if (crowds > 0 and photos == len(self.kinds)) or (crowds < 1 and not photos):
            known = ", ".join(cost.name for cost in self.kinds)
            raise ConfigError(f"--crowds: expected a mix of what was measured ({known}), got {crowds:g}")
        each = {cost.name: crowds if cost.name == CROWD_NAME else (1 - crowds) / photos for cost in self.kinds}
        return {name: share for name, share in each.items() if share > 0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Callers:
    """Who asks from the gateway's own machine.

    Attributes:
        caller_ms: of CPU time for each request.
        lag_ms: from when a request is due until it is sent.
    """

    caller_ms: float = 0.0
    lag_ms: float = 0.0


ELSEWHERE: Final = Callers()
"""They take nothing here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """What a plan is for, at whatever rate.

    Attributes:
        crowds: of the requests.
        cores: that are there for it; no whole number where others use them too.
    """

    costs: Costs
    settings: EngineConfig
    crowds: float
    timeout_s: float
    cores: float
    callers: Callers = ELSEWHERE

    def at(self, idle_s: float) -> Served:
        """A gateway and its requests, each after so long a pause on average.

        Raises:
            ConfigError: a kind that is asked for was not measured.
        """
        known = {cost.name: cost for cost in self.costs.kinds}
        kind_after = partial(kind_of, idle_ms=1000 * idle_s, callers=self.callers, timeout_s=self.timeout_s)
        kinds = [kind_after(known[name], share=share) for name, share in self.costs.shares(self.crowds).items()]
        gateway = self.costs.gateway(self.settings, 1000 * idle_s)
        return Served(gateway=replace(gateway, cores=self.cores), kinds=tuple(kinds))


def kind_of(cost: KindCost, *, share: float, idle_ms: float, callers: Callers, timeout_s: float) -> Kind:
    """Such requests, each after so long a pause on average."""
    stages = cost.at(idle_ms)
    return Kind(
        name=cost.name,
        share=share,
        faces=cost.faces,
        prepare_s=stages.prepare_ms / 1000,
        overhead_s=stages.overhead_ms / 1000,
        after_s=stages.after_ms / 1000,
        waits_s=stages.waits_ms / 1000,
        caller_s=callers.caller_ms / 1000,
        lag_s=callers.lag_ms / 1000,
        timeout_s=timeout_s,
    )


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
