"""What crowds leave to others, over all stages that compute in the same places.

A stage by itself sees its own slots only. Where preparation and embedded workers share cores, one crowd that is
prepared and another one that is scored would have them all, and a selfie a third of one.

If every request had an equal part of the places, the mean of what a selfie takes would depend on how busy they are and
not on how large the others are (M/G/1 with processor sharing: Kleinrock, Queueing Systems II, 1976, 4.4). Not its tail:
crowds stay for long and come together. So all crowds here have one request's part
(docs/adr/0108-crowds-together-are-one-request.md).
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Final, Protocol

from ferserve.serving.requests import Priority

Flow = tuple[Priority, str]
"""A request, the unit of fairness."""
LEAST_PART: Final = 0.25
"""Of the places, that is left to crowds however many others are here."""
MOST_DEBT_S: Final = 1.0
"""Bulk crowds' part counts what interactive ones have, who are not held back for bulk; without end it would add up."""
_NOTHING_S: Final = 1e-6


class Stage(Protocol):
    """Runs units of requests, some side by side."""

    @property
    def has_idle_slot(self) -> bool:
        """Whether one more unit could run."""
        ...

    def crowds(self, priority: Priority) -> AbstractSet[str]:
        """The requests of this priority that wait here and have more to do than a unit."""
        ...

    def others_at_work(self, priority: Priority) -> int:
        """How many units of no crowd run here, and how many requests of at least this priority have a slot to come."""
        ...

    def look_again(self) -> None:
        """A crowd may start now that could not before."""
        ...


@dataclass(slots=True, kw_only=True)
class _Part:
    """What crowds of a priority and those before it have together.

    Attributes:
        rate: places that are theirs; all where nobody else is here.
        debt_s: how much longer they have had places than that, at most `MOST_DEBT_S`.
        is_limited: somebody else is here.
    """

    rate: float
    debt_s: float = 0.0
    is_limited: bool = False

    @property
    def is_in_debt(self) -> bool:
        """Whether they wait for others to have had theirs."""
        return self.debt_s > _NOTHING_S

    def advance(self, passed_s: float, units: int) -> None:
        """So much time has passed with so many units of theirs.

        What others leave behind is worked off, and not forgotten: between two turns of a photo it is nowhere.
        """
        self.debt_s = min(max(self.debt_s + passed_s * (units - self.rate), 0.0), MOST_DEBT_S)


@dataclass(slots=True)
class _Runs:
    """The crowds' units of one stage: how many by their most urgent crowd's priority, and whose they are."""

    units: Counter[Priority] = field(default_factory=Counter)
    flows: Counter[Flow] = field(default_factory=Counter)

    def count(self, crowds: AbstractSet[Flow], by: int) -> None:
        """One unit more, or one less."""
        self.units[min(priority for priority, _ in crowds)] += by
        for flow in crowds:
            self.flows[flow] += by
            if not self.flows[flow]:
                del self.flows[flow]


class CrowdLimit:
    """As long as others are here, crowds have the part of the places that is theirs, and all together but one at most.

    Others are requests of at least their priority that are no crowds, whether they wait, run, or are on their way.
    Beside M of them all crowds have 1 / (M + 1) of the places, or `LEAST_PART`. A unit is not stopped: crowds that have
    had more wait before the next one. Stages whose crowds both wait take turns. All of it is one event loop's.

    Args:
        places: what may compute side by side; with a single one there is nothing to be left.
        clock: seconds, rising, at the rate of the event loop's.
    """

    def __init__(self, places: int, clock: Callable[[], float]) -> None:
        self._places = places
        self._clock = clock
        self._as_of_s = clock()
        self._here: dict[Priority, Counter[str]] = {priority: Counter() for priority in Priority}
        self._parts = {priority: _Part(rate=places) for priority in Priority}
        self._stages: dict[Stage, _Runs] = {}  # who had the last turn stands last
        self._watchers: list[Callable[[], None]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._soon: asyncio.Handle | None = None

    def join(self, stage: Stage) -> None:
        """One more stage computes here."""
        self._stages[stage] = _Runs()

    def leave(self, stage: Stage) -> None:
        """A stage that joined has nothing to do any more."""
        if self._stages.pop(stage, None) is not None:
            self.changed()

    def watch(self, on_change: Callable[[], None]) -> None:
        """Call this whenever anything said here may have become another."""
        self._watchers.append(on_change)

    def begin(self, flow: str, priority: Priority) -> None:
        """A request came, or more of one."""
        self._here[priority][flow] += 1
        if self.others_here(Priority.BULK):
            self.changed()  # with more of it the last of the others may be a crowd too
        else:
            self._update()

    def end(self, flow: str, priority: Priority) -> None:
        """What began is over."""
        here = self._here[priority]
        here[flow] -= 1
        if not here[flow]:
            del here[flow]
            self.changed()

    def started(self, stage: Stage, crowds: AbstractSet[Flow]) -> None:
        """A unit of these crowds runs now, or one of others where there are none."""
        if crowds:
            runs = self._stages[stage] = self._stages.pop(stage)
            self._advance()
            runs.count(crowds, 1)
        if crowds or self.others_here(Priority.BULK):
            self.changed()

    def finished(self, stage: Stage, crowds: AbstractSet[Flow]) -> None:
        """A unit that started has ended."""
        runs = self._stages.get(stage)
        if crowds and runs is not None:
            self._advance()
            runs.count(crowds, -1)
        if crowds or self.others_here(Priority.BULK):
            self.changed()

    def changed_soon(self) -> None:
        """The same as `changed`, once for all that changes now."""
        if self._soon is None:
            self._soon = asyncio.get_running_loop().call_soon(self.changed)

    def changed(self) -> None:
        """Who waits has changed, or who runs, or who is here."""
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None
        self._update()
        for stage in self._stages:
            stage.look_again()

    def may_start(self, stage: Stage, priority: Priority) -> bool:
        """Whether a crowd of this priority may have a slot of this stage."""
        part = self._parts[priority]
        if self._places == 1 or not part.is_limited:
            return True
        self._advance()
        units = self._units(Priority.BULK)
        at_work = sum(each.others_at_work(priority) for each in self._stages) if part.is_in_debt else 0
        if part.is_in_debt and self._places <= units + at_work:
            return False
        # Nobody waits for one who waits: not for a crowd in debt, unless it comes first anyway.
        first = [each for each, its in self._parts.items() if each <= priority or not its.is_in_debt]
        free = self._places - 1 - units
        for other in self._stages:
            if other is stage or free <= 0:
                break
            free -= _wants_place(other, first)
        return free > 0

    def others_here(self, priority: Priority) -> bool:
        """Whether somebody is here, of at least this priority, who is no crowd, while a crowd is."""
        return self._parts[priority].is_limited

    def is_contended(self, stage: Stage) -> bool:
        """Whether a unit of this stage that has gone on for long takes from others, besides those that wait for it."""
        part = self._parts[Priority.BULK]
        elsewhere = (
            runs.flows or _wants_place(other, Priority) for other, runs in self._stages.items() if other is not stage
        )
        return self._places > 1 and part.is_limited and (part.rate < 1 or any(elsewhere))

    def _advance(self) -> None:
        now_s = self._clock()
        for priority, part in self._parts.items():
            part.advance(now_s - self._as_of_s, self._units(priority))
        self._as_of_s = now_s

    def _units(self, priority: Priority) -> int:
        """How many run of crowds of at least this priority."""
        return sum(runs.units[each] for runs in self._stages.values() for each in Priority if each <= priority)

    def _update(self) -> None:
        """What is whose from now on."""
        self._advance()
        crowds = others = 0
        for priority, here in self._here.items():
            found = here.keys() & self._crowds(priority)
            crowds += len(found)
            others += len(here) - len(found)
            part, mine = self._parts[priority], self._places * max(1 / (others + 1), LEAST_PART)
            part.is_limited = bool(crowds and others)
            part.rate = min(mine, self._places - 1) if part.is_limited else self._places
        self._set_timer()
        for on_change in self._watchers:
            on_change()

    def _set_timer(self) -> None:
        """Look again when the first of the debts is gone."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waits_s = [
            part.debt_s / (part.rate - units)
            for priority, part in self._parts.items()
            if part.is_limited and part.is_in_debt and (units := self._units(priority)) < part.rate
        ]
        if waits_s and self._stages:
            self._timer = asyncio.get_running_loop().call_later(min(waits_s), self.changed)

    def _crowds(self, priority: Priority) -> set[str]:
        found = {flow for runs in self._stages.values() for each, flow in runs.flows if each is priority}
        return found.union(*(stage.crowds(priority) for stage in self._stages))


def _wants_place(stage: Stage, priorities: Iterable[Priority]) -> bool:
    return stage.has_idle_slot and any(stage.crowds(priority) for priority in priorities)
