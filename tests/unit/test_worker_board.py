import pytest

from ferserve.serving.metrics import Metrics
from ferserve.serving.worker_board import ModelWorkers, WorkerBoard
from ferserve.serving.workers.circuit import CircuitState
from ferserve.serving.workers.replica import FailureCause


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def board(metrics: Metrics) -> WorkerBoard:
    return WorkerBoard(metrics.workers)


def working(*names: str) -> ModelWorkers:
    workers = ModelWorkers()
    for name in names:
        workers.circuit_changed(name, CircuitState.CLOSED)
    return workers


def up(metrics: Metrics, model: str, worker: str) -> float | None:
    return metrics.registry.get_sample_value("ferserve_worker_up", {"model": model, "worker": worker})


def test_the_gateway_is_served_while_one_worker_of_one_model_works(board: WorkerBoard):
    first, second = working("a"), working("b")
    board.show("first", first)
    board.show("second", second)
    seen: list[bool] = []
    board.subscribe(seen.append)
    first.circuit_changed("a", CircuitState.OPEN)
    second.circuit_changed("b", CircuitState.OPEN)
    first.circuit_changed("a", CircuitState.CLOSED)
    assert seen == [True, True, False, True]


def test_a_pool_that_is_not_shown_yet_changes_nothing(board: WorkerBoard, metrics: Metrics):
    board.show("m", working("a"))
    coming = ModelWorkers()
    coming.circuit_changed("a", CircuitState.OPEN)
    coming.worker_failed("a", FailureCause.PROBE, "not yet")
    assert up(metrics, "m", "a") == 1
    assert board.any_works
    assert board.workers("m")["a"].last_failure is None


def test_who_is_shown_takes_the_place_of_those_before(board: WorkerBoard, metrics: Metrics):
    before, after = working("a"), working("a")
    board.show("m", before)
    board.show("m", after)
    before.circuit_changed("a", CircuitState.OPEN)
    assert up(metrics, "m", "a") == 1
    assert board.any_works
    after.worker_failed("a", FailureCause.ERROR, "broken")
    assert board.workers("m")["a"].failures["error"] == 1
    assert board.workers("m")["a"].last_failure == "broken"


def test_without_models_nothing_is_served(board: WorkerBoard):
    assert not board.any_works
