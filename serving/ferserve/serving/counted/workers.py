"""Workers: which are up, how they failed."""

from prometheus_client import CollectorRegistry, Counter, Gauge

from ferserve.serving.workers.circuit import CircuitState
from ferserve.serving.workers.replica import FailureCause


class Workers:
    """Workers of every archive."""

    def __init__(self, registry: CollectorRegistry) -> None:
        worker = ["model", "worker"]
        self.up = Gauge("ferserve_worker_up", "Whether a worker is given batches.", worker, registry=registry)
        self.circuit = Gauge(
            "ferserve_worker_circuit",
            "1 for the state that a worker's circuit has: closed, open, half_open; 0 for the others.",
            [*worker, "state"],
            registry=registry,
        )
        self.failures = Counter(
            "ferserve_worker_failures",
            "Failed batches and probes, by cause: error, timeout, late (the batch's own deadline), answer, probe.",
            [*worker, "cause"],
            registry=registry,
        )
        self.retried = Counter(
            "ferserve_retried_batches", "Batches that were tried on a second worker.", ["model"], registry=registry
        )


class WorkerMetrics:
    """The `WorkerObserver` of one archive's workers."""

    def __init__(self, workers: Workers, model: str) -> None:
        self._workers = workers
        self._model = model
        self._retried = workers.retried.labels(model)

    def circuit_changed(self, worker: str, state: CircuitState) -> None:
        """A worker's circuit has this state from now on."""
        self._workers.up.labels(self._model, worker).set(state is CircuitState.CLOSED)
        for each in CircuitState:
            self._workers.circuit.labels(self._model, worker, each.value).set(each is state)
        for cause in FailureCause:
            self._workers.failures.labels(self._model, worker, cause.value)  # shown as 0 before the first

    def worker_failed(self, worker: str, cause: FailureCause, message: str) -> None:
        """A worker failed once; the words are for the log and for `/status`."""
        del message
        self._workers.failures.labels(self._model, worker, cause.value).inc()

    def batch_retried(self) -> None:
        """A batch is tried on a second worker."""
        self._retried.inc()
