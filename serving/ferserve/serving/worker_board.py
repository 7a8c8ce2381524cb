"""How the workers of every model are now: for `/status`, for the metrics, and for whether the gateway is ready."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ferserve.serving.workers.circuit import CircuitState
from ferserve.serving.workers.replica import FailureCause, WorkerObserver


@dataclass(slots=True, kw_only=True)
class WorkerStatus:
    """One worker.

    Attributes:
        circuit: `closed` while it is given batches.
        failures: since the start, by cause.
        last_failure: what was wrong last, in words for operators.
    """

    circuit: CircuitState = CircuitState.OPEN
    failures: dict[str, int] = field(default_factory=lambda: {cause.value: 0 for cause in FailureCause})
    last_failure: str | None = None


class ModelWorkers:
    """The `WorkerObserver` of one model's pool; tells `show`'s audience only once it is shown."""

    def __init__(self) -> None:
        self.workers: dict[str, WorkerStatus] = {}
        self._metrics: WorkerObserver | None = None
        self._changed: Callable[[], None] = lambda: None

    @property
    def any_works(self) -> bool:
        """Whether batches would be scored."""
        return any(worker.circuit is CircuitState.CLOSED for worker in self.workers.values())

    def show(self, metrics: WorkerObserver, changed: Callable[[], None]) -> None:
        """Tell everybody from now on, beginning with the present state."""
        self._metrics = metrics
        self._changed = changed
        for name, worker in self.workers.items():
            metrics.circuit_changed(name, worker.circuit)
        changed()

    def hide(self) -> None:
        """Tell nobody any more: another pool serves the model, or none."""
        self._metrics = None
        self._changed = lambda: None

    def circuit_changed(self, worker: str, state: CircuitState) -> None:
        """A worker's circuit has this state from now on."""
        self.workers.setdefault(worker, WorkerStatus()).circuit = state
        if self._metrics is not None:
            self._metrics.circuit_changed(worker, state)
        self._changed()

    def worker_failed(self, worker: str, cause: FailureCause, message: str) -> None:
        """A worker failed once."""
        status = self.workers.setdefault(worker, WorkerStatus())
        status.failures[cause.value] += 1
        status.last_failure = message
        if self._metrics is not None:
            self._metrics.worker_failed(worker, cause, message)

    def batch_retried(self) -> None:
        """A batch is tried on a second worker."""
        if self._metrics is not None:
            self._metrics.batch_retried()


class WorkerBoard:
    """The pools that serve now, one a model.

    Args:
        metrics: gives the counters of one model.
    """

    def __init__(self, metrics: Callable[[str], WorkerObserver]) -> None:
        self._metrics = metrics
        self._models: dict[str, ModelWorkers] = {}
        self._listeners: list[Callable[[bool], None]] = []
        self._can_prepare = True

    @property
    def any_works(self) -> bool:
        """Whether at least one model is served, and photos are prepared for it."""
        return self._can_prepare and any(model.any_works for model in self._models.values())

    def can_prepare(self, any_can: bool) -> None:  # noqa: FBT001 -- the one thing that it says
        """Whether anybody prepares photos; taken to be so until told otherwise."""
        if self._can_prepare is not any_can:
            self._can_prepare = any_can
            self._tell()

    def show(self, model: str, workers: ModelWorkers) -> None:
        """These serve a model from now on, in the place of those before."""
        before = self._models.get(model)
        if before is not None:
            before.hide()
        self._models[model] = workers
        workers.show(self._metrics(model), self._tell)

    def workers(self, model: str) -> Mapping[str, WorkerStatus]:
        """The workers of a shown model, by name."""
        return self._models[model].workers

    def subscribe(self, listener: Callable[[bool], None]) -> None:
        """Call `listener` with whether at least one model is served: now, and when it may have changed."""
        self._listeners.append(listener)
        listener(self.any_works)

    def _tell(self) -> None:
        for listener in self._listeners:
            listener(self.any_works)
