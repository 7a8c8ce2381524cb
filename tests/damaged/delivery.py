"""Delivers a corpus to a running gateway and says what was wrong with the answers."""

import asyncio
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.damaged.doors import Doors
from tests.damaged.expected import Answer, fault
from tests.damaged.inputs import Damaged, HttpRequest, Message, Picture, RawConnection, RpcMessage, RpcStream

SENDERS = 4
NEIGHBOUR_EVERY = 10
ANSWER_WITHIN_S = 60.0
SLOW = "slow sender"


@dataclass(slots=True)
class Report:
    """What came of a delivery.

    Attributes:
        counts: answers by kind and reason.
        faults: one line each; empty if all is well.
        sent: inputs delivered.
    """

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    sent: int = 0

    def table(self) -> str:
        """Kinds down, reasons across."""
        reasons = sorted({reason for _, reason in self.counts})
        kinds = sorted({kind for kind, _ in self.counts})
        rows = [f"{'':18}" + "".join(f"{reason:>19}" for reason in reasons)]
        rows += [f"{kind:18}" + "".join(f"{self.counts[kind, reason]:19}" for reason in reasons) for kind in kinds]
        totals = (sum(self.counts[kind, reason] for kind in kinds) for reason in reasons)
        return "\n".join([*rows, f"{'all':18}" + "".join(f"{total:19}" for total in totals)])


async def deliver(inputs: Iterable[Damaged], doors: Doors) -> Report:
    """Send inputs side by side, a good neighbour beside every tenth; slow senders take their time beside all others."""
    report = Report()
    quick = iter([(turn, one) for turn, one in enumerate(inputs) if one.kind != SLOW])

    async def work_off() -> None:
        for turn, one in quick:
            await _deliver_one(one, turn, doors, report)

    async with asyncio.TaskGroup() as group:
        for one in inputs:
            if one.kind == SLOW:
                group.create_task(_deliver_one(one, 0, doors, report))
        for _ in range(SENDERS):
            group.create_task(work_off())
    return report


async def _deliver_one(one: Damaged, turn: int, doors: Doors, report: Report) -> None:
    message = await asyncio.to_thread(one.make)  # some take a second
    beside = [doors.good_neighbour(turn // NEIGHBOUR_EVERY)] if turn % NEIGHBOUR_EVERY == 0 else []
    try:
        async with asyncio.timeout(ANSWER_WITHIN_S):
            answers, *_ = await asyncio.gather(_send(message, turn, doors), *beside)
    except TimeoutError:
        report.faults.append(f"{one.name}: no answer within {ANSWER_WITHIN_S:.0f} s")
        return
    except (ConnectionError, ValueError) as error:
        report.faults.append(f"{one.name}: {error!r}")
        return
    report.sent += 1
    report.counts.update((one.kind, answer.reason) for answer in answers)
    report.faults += [f"{one.name}: {wrong}" for wrong in judge(one, message, answers)]


async def _send(message: Message, turn: int, doors: Doors) -> list[Answer]:
    match message:
        case Picture():
            return await doors.picture(message.data, turn)
        case HttpRequest():
            return [await doors.request(message)]
        case RawConnection():
            return [await doors.raw(message)]
        case RpcMessage():
            return [await doors.rpc(message)]
        case RpcStream():
            return await doors.stream(message)


def judge(one: Damaged, message: Message, answers: list[Answer]) -> list[str]:
    """Say what is wrong with the answers to one input, by themselves and beside each other."""
    picture = message.data if isinstance(message, Picture) else None
    found = [f"{answer.door}: {wrong}" for answer in answers if (wrong := fault(one.expected, answer, picture))]
    if picture is not None and len({answer.reason for answer in answers}) > 1:
        said = ", ".join(f"{answer.door}: {answer.reason}" for answer in answers)
        found.append(f"the doors disagree ({said})")
    if isinstance(message, RpcStream) and message.leave_after is None:
        if len(answers) != len(message.frames):
            found.append(f"{len(answers)} answers to {len(message.frames)} frames")
        if one.expected.reasons and answers and answers[-1].reason not in one.expected.reasons:
            found.append(f"the last answer was {answers[-1].reason}")
    return found
