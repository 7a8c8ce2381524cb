"""A stage that only waits."""

from ferserve.serving.requests import Priority


class Waiting:
    """A stage in which crowds wait."""

    has_idle_slot = True

    def __init__(self, **flows: Priority) -> None:
        self.flows = flows
        self.at_work = 0
        self.looked = 0

    def crowds(self, priority: Priority) -> set[str]:
        return {flow for flow, each in self.flows.items() if each is priority}

    def others_at_work(self, _priority: Priority) -> int:
        return self.at_work

    def look_again(self) -> None:
        self.looked += 1
