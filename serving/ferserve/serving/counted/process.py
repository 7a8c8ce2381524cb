"""What the gateway and its processes take of the machine, under the names that Prometheus's own collector has."""

import os
from collections.abc import Iterable
from typing import Final

from prometheus_client import CollectorRegistry, Metric, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from ferserve.serving.process_family import cpu_s, memory_bytes

_CPU: Final = "ferserve_process_cpu_seconds"
_MEMORY: Final = "ferserve_process_resident_memory_bytes"


class FamilyCollector:
    """Prometheus's collector, but CPU time and memory are those of all processes of the gateway together."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._own = ProcessCollector(namespace="ferserve", registry=None)
        self._cpu_s = 0.0
        registry.register(self)

    def collect(self) -> Iterable[Metric]:
        """At each scrape; nothing where there is no /proc."""
        for metric in self._own.collect():
            if metric.name == _CPU:
                # Those that ended with the one that forked them are counted nowhere any more; a counter never falls.
                self._cpu_s = max(self._cpu_s, cpu_s(os.getpid()))
                yield CounterMetricFamily(_CPU, "CPU seconds, with all processes of its own.", value=self._cpu_s)
            elif metric.name == _MEMORY:
                says = "Memory in use, with all processes of its own; what they share counts once."
                yield GaugeMetricFamily(_MEMORY, says, value=memory_bytes(os.getpid()))
            else:
                yield metric
