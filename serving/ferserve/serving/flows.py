"""Which requests are somewhere, by priority: a flow counts once, however many of its photos or faces are there."""

from collections import Counter

from ferserve.serving.requests import Priority


class Flows:
    """Counts comings and goings."""

    def __init__(self) -> None:
        self._counts = {priority: Counter[str]() for priority in Priority}

    def add(self, flow: str, priority: Priority) -> None:
        """One more of this flow came."""
        self._counts[priority][flow] += 1

    def remove(self, flow: str, priority: Priority) -> None:
        """One of this flow went."""
        counts = self._counts[priority]
        counts[flow] -= 1
        if not counts[flow]:
            del counts[flow]

    def any_elsewhere(self, here: "Flows", priority: Priority) -> bool:
        """Whether one of these, of at least this priority, is not `here`."""
        return any(
            flow not in here._counts[each]  # noqa: SLF001 -- two of one class
            for each in Priority
            if each <= priority
            for flow in self._counts[each]
        )
