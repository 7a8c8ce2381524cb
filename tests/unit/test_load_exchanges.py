import pytest

from ferserve.faces.errors import FerserveError, InvalidImageError
from ferserve.serving.benchmarks.capacity import goodput_blocks
from ferserve.serving.benchmarks.drain import _report
from ferserve.serving.benchmarks.exchanges import Ending, Exchange, blocks_by_time, ending_of
from ferserve.serving.errors import DeadlineError, NotReadyError, OverloadedError


def exchange(
    due_s: float, took_s: float = 0.1, *, ending: Ending = Ending.OK, retry_after_s: float | None = None
) -> Exchange:
    return Exchange(
        stream="x", due_s=due_s, sent_s=due_s + 0.01, done_s=due_s + took_s, timeout_s=1.0, ending=ending,
        retry_after_s=retry_after_s,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("error", "ending"),
    [
        (OverloadedError("full", retry_after_s=1.0), Ending.REFUSED),
        (NotReadyError("draining"), Ending.UNAVAILABLE),
        (DeadlineError("late"), Ending.EXPIRED),
        (InvalidImageError("no picture"), Ending.FAILED),
        (FerserveError("INTERNAL"), Ending.FAILED),
    ],
)
def test_every_error_is_an_ending(error: FerserveError, ending: Ending):
    assert ending_of(error) is ending


def test_latency_counts_from_when_a_request_was_due():
    late_to_leave = Exchange(stream="x", due_s=1.0, sent_s=1.5, done_s=1.6, timeout_s=9.0, ending=Ending.OK)
    assert late_to_leave.latency_ms == pytest.approx(600.0)
    assert late_to_leave.lag_ms == pytest.approx(500.0)


def test_late_is_an_answer_after_its_deadline():
    assert not exchange(0.0, took_s=1.0).is_late
    assert exchange(0.0, took_s=1.02).is_late
    assert not exchange(0.0, took_s=1.02, ending=Ending.EXPIRED).is_late


def test_told_is_who_knows_when_to_come_back():
    assert exchange(0.0, ending=Ending.REFUSED, retry_after_s=0.5).is_told
    assert not exchange(0.0, ending=Ending.REFUSED).is_told
    assert not exchange(0.0, ending=Ending.EXPIRED, retry_after_s=0.5).is_told


def test_blocks_of_time_leave_out_what_lies_outside():
    exchanges = [exchange(due_s) for due_s in (0.5, 1.0, 1.9, 3.0, 4.9, 5.0)]
    blocks = blocks_by_time(
        exchanges, lambda one: one.due_s, when=lambda one: one.due_s, begin_s=1.0, end_s=5.5, block_s=2.0
    )
    assert [block.tolist() for block in blocks] == [[1.0, 1.9], [3.0, 4.9]]


def test_goodput_counts_answers_in_time_after_the_warm_up():
    exchanges = [exchange(second + 0.5) for second in range(8) for _ in range(second)]
    exchanges += [exchange(3.0, took_s=1.5), exchange(3.5, ending=Ending.REFUSED)]
    assert [block.tolist() for block in goodput_blocks(exchanges, 8.0)] == [[2], [3], [4], [5], [6], [7]]


DRAINED = {"offered_per_s": 1.0, "accepted_at_signal": 1, "exit_code": 0, "took_s": 0.5}


def test_a_drain_without_loss():
    report = _report(
        [
            exchange(0.0),
            exchange(0.5, ending=Ending.REFUSED, retry_after_s=1.0),
            exchange(0.9, took_s=0.3),
            exchange(0.95, ending=Ending.UNAVAILABLE, retry_after_s=1.0),
            exchange(1.1, ending=Ending.UNAVAILABLE, retry_after_s=1.0),
            exchange(1.5, ending=Ending.UNAVAILABLE),
        ],
        1.0,
        **DRAINED,
    )
    assert (report.lost, report.answered_after) == (0, 1)
    assert report.sent_before == {"ok": 2, "refused": 1, "unavailable": 1}
    assert report.sent_after == {"unavailable": 2}


@pytest.mark.parametrize(
    "lost",
    [
        exchange(0.5, ending=Ending.UNAVAILABLE),  # the connection broke while it waited
        exchange(0.5, ending=Ending.EXPIRED),
        exchange(0.5, ending=Ending.FAILED),
        exchange(1.5, ending=Ending.FAILED),
        exchange(1.5, ending=Ending.EXPIRED),
    ],
)
def test_a_request_whose_end_nobody_told_is_lost(lost: Exchange):
    assert _report([exchange(0.0), lost], 1.0, **DRAINED).lost == 1
