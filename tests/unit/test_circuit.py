import pytest

from ferserve.serving.workers.circuit import Circuit, CircuitState


@pytest.fixture
def circuit() -> Circuit:
    circuit = Circuit(failures_to_open=3, retry_s=1.0, max_retry_s=5.0)
    circuit.begin_trial()
    circuit.end_trial(0.0, passed=True)
    return circuit


def open_at(circuit: Circuit, now_s: float) -> float:
    """How long it then waits for its trial."""
    assert circuit.failed(now_s, at_once=True)
    return circuit.trial_at_s - now_s


def test_a_new_one_is_open_and_due_for_its_trial():
    circuit = Circuit(failures_to_open=3, retry_s=1.0, max_retry_s=5.0)
    assert circuit.state is CircuitState.OPEN
    assert circuit.trial_at_s <= 0.0


def test_failures_in_a_row_open_it(circuit: Circuit):
    assert [circuit.failed(10.0) for _ in range(3)] == [False, False, True]
    assert circuit.state is CircuitState.OPEN
    assert circuit.trial_at_s == 11.0


def test_a_scored_batch_ends_the_row(circuit: Circuit):
    circuit.failed(0.0)
    circuit.failed(0.0)
    circuit.scored()
    assert not circuit.failed(0.0)
    assert circuit.state is CircuitState.CLOSED


def test_a_trial_decides(circuit: Circuit):
    open_at(circuit, 0.0)
    circuit.begin_trial()
    assert circuit.state is CircuitState.HALF_OPEN
    circuit.end_trial(1.0, passed=False)
    assert circuit.state is CircuitState.OPEN
    circuit.begin_trial()
    circuit.end_trial(3.0, passed=True)
    assert circuit.state is CircuitState.CLOSED


def test_each_failed_trial_doubles_the_wait_up_to_the_most(circuit: Circuit):
    open_at(circuit, 0.0)
    waits_s = []
    for _ in range(4):
        circuit.begin_trial()
        circuit.end_trial(100.0, passed=False)
        waits_s.append(circuit.trial_at_s - 100.0)
    assert waits_s == [2.0, 4.0, 5.0, 5.0]


def test_passing_trials_and_failing_batches_does_not_flap_for_ever(circuit: Circuit):
    waits_s = []
    for _ in range(3):
        waits_s.append(open_at(circuit, 0.0))
        circuit.begin_trial()
        circuit.end_trial(0.0, passed=True)
    assert waits_s == [1.0, 2.0, 4.0]
    circuit.scored()
    assert open_at(circuit, 0.0) == 1.0


def test_what_ends_while_it_is_open_changes_nothing(circuit: Circuit):
    open_at(circuit, 0.0)
    circuit.scored()
    assert not circuit.failed(0.5, at_once=True)
    assert (circuit.state, circuit.trial_at_s) == (CircuitState.OPEN, 1.0)
    circuit.begin_trial()
    circuit.scored()
    assert not circuit.failed(0.7)
    assert circuit.state is CircuitState.HALF_OPEN
