import pytest

from ferserve.faces.errors import Reason
from ferserve.serving.admission import Admission, AdmissionConfig, Bound, Forecast, Ticket
from ferserve.serving.errors import DeadlineError, OverloadedError
from ferserve.serving.rate import DEFAULT_RETRY_S
from ferserve.serving.requests import Priority

INTERACTIVE, BULK = Priority
IN_TIME = Forecast(needed_s=0.0, left_s=1.0)


class Log:
    def __init__(self) -> None:
        self.refusals: list[tuple[Bound, Priority]] = []
        self.images = 0

    def refused(self, bound: Bound, priority: Priority) -> None:
        self.refusals.append((bound, priority))

    def in_flight(self, images: int) -> None:
        self.images = images


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def clock() -> Clock:
    return Clock()


class Gate:
    """An admission with handy calls; bounds that a test does not name are out of its way."""

    def __init__(self, log: Log, clock: Clock, **settings: float) -> None:
        config = {"max_images": 1000, "max_inflight_bytes": 10**9, "max_inflight_faces": 10**6} | settings
        self.admission = Admission(AdmissionConfig(**config), bulk_share=0.05, observer=log, clock=clock)

    def enter(
        self,
        *,
        size_bytes: int = 1,
        priority: Priority = INTERACTIVE,
        forecast: Forecast = IN_TIME,
        max_faces: int | None = None,
    ) -> Ticket:
        ticket = self.admission.admit(size_bytes=size_bytes, priority=priority, forecast=forecast, max_faces=max_faces)
        return ticket.__enter__()

    def count(self, priority: Priority, *, size_bytes: int = 1) -> int:
        """How many get in before one is refused."""
        admitted = 0
        while admitted < 10_000:
            try:
                self.enter(priority=priority, size_bytes=size_bytes)
            except OverloadedError:
                return admitted
            admitted += 1
        return admitted


def leave(ticket: Ticket) -> None:
    ticket.__exit__(None, None, None)


def test_images_are_bounded_and_a_refusal_is_counted(log: Log, clock: Clock):
    gate = Gate(log, clock, max_images=10)
    assert gate.count(INTERACTIVE) == 10
    assert log.refusals == [(Bound.IMAGES, INTERACTIVE)]
    assert log.images == gate.admission.images_in_flight == 10


@pytest.mark.parametrize("forecast", [Forecast(needed_s=1.0, left_s=-0.01), Forecast(needed_s=0.0, left_s=0.0)])
def test_who_is_too_late_already_is_not_told_to_come_back(log: Log, clock: Clock, forecast: Forecast):
    gate = Gate(log, clock, max_images=2)
    gate.enter()
    if forecast.needed_s:
        with pytest.raises(DeadlineError):
            gate.enter(forecast=forecast)
    gate.enter()
    with pytest.raises(DeadlineError):
        gate.enter(forecast=forecast)
    assert log.refusals == []


def test_bytes_are_bounded(log: Log, clock: Clock):
    gate = Gate(log, clock, max_inflight_bytes=1000)
    assert gate.count(INTERACTIVE, size_bytes=100) == 9, "the tenth would take what is kept for bulk"
    assert log.refusals == [(Bound.BYTES, INTERACTIVE)]


def test_expected_faces_are_bounded(log: Log, clock: Clock):
    gate = Gate(log, clock, max_inflight_faces=19, first_expected_faces=4)
    assert gate.count(INTERACTIVE) == 4
    assert gate.admission.faces_in_flight == 16
    assert log.refusals == [(Bound.FACES, INTERACTIVE)]


def test_a_refusal_says_what_ran_out_and_when_to_come_back(log: Log, clock: Clock):
    gate = Gate(log, clock, max_images=10)
    gate.count(INTERACTIVE)
    with pytest.raises(OverloadedError, match=r"no room for more images in flight \(interactive\): 10 of 10") as caught:
        gate.enter()
    assert caught.value.reason is Reason.OVERLOADED
    assert caught.value.retry_after_s == DEFAULT_RETRY_S


def test_leaving_makes_room_whether_it_went_well_or_not(log: Log, clock: Clock):
    gate = Gate(log, clock, max_images=1)
    with gate.admission.admit(size_bytes=1, priority=INTERACTIVE, forecast=IN_TIME), pytest.raises(OverloadedError):
        gate.enter()
    with pytest.raises(KeyError), gate.admission.admit(size_bytes=1, priority=INTERACTIVE, forecast=IN_TIME):
        raise KeyError
    with gate.admission.admit(size_bytes=1, priority=INTERACTIVE, forecast=IN_TIME):
        assert log.images == 1
    assert log.images == 0
    assert gate.admission.faces_in_flight == 0


def test_a_refused_request_holds_nothing(log: Log, clock: Clock):
    gate = Gate(log, clock, max_images=10, max_inflight_bytes=100)
    ticket = gate.enter(size_bytes=60)
    with pytest.raises(OverloadedError):
        gate.enter(size_bytes=60)
    assert gate.admission.images_in_flight == 1
    leave(ticket)
    assert gate.enter(size_bytes=60)


def test_the_first_of_a_class_is_let_in_however_large(log: Log, clock: Clock):
    gate = Gate(log, clock, max_inflight_bytes=100)
    ticket = gate.enter(size_bytes=1000)
    with pytest.raises(OverloadedError):
        gate.enter(size_bytes=1)
    leave(ticket)
    assert gate.enter(size_bytes=1)


def test_bulk_is_refused_before_interactive(log: Log, clock: Clock):
    gate = Gate(log, clock, max_images=100, bulk_ceiling=0.8)
    assert gate.count(BULK) == 80
    assert gate.count(INTERACTIVE) == 20


def test_bulk_always_finds_its_share_free(log: Log, clock: Clock):
    gate = Gate(log, clock, max_images=100, bulk_ceiling=0.8)
    assert gate.count(INTERACTIVE) == 95
    assert gate.count(BULK) == 5


def test_bulk_gets_in_even_where_its_share_is_less_than_one_picture(log: Log, clock: Clock):
    gate = Gate(log, clock, max_inflight_faces=20, first_expected_faces=4)
    gate.count(INTERACTIVE)
    ticket = gate.enter(priority=BULK)
    with pytest.raises(OverloadedError, match="bulk"):
        gate.enter(priority=BULK)
    leave(ticket)
    assert gate.enter(priority=BULK)


def test_reconciling_never_refuses_and_those_who_come_later_feel_it(log: Log, clock: Clock):
    gate = Gate(log, clock, max_inflight_faces=100, first_expected_faces=1)
    crowd, other = gate.enter(), gate.enter()
    crowd.reconcile(found=300, kept=300)
    assert gate.admission.faces_in_flight == 301
    with pytest.raises(OverloadedError):
        gate.enter()
    leave(crowd)
    assert gate.admission.faces_in_flight == 1
    leave(other)
    assert gate.admission.faces_in_flight == 0


def test_fewer_faces_than_expected_make_room_at_once(log: Log, clock: Clock):
    gate = Gate(log, clock, max_inflight_faces=20, first_expected_faces=10)
    ticket = gate.enter()
    with pytest.raises(OverloadedError):
        gate.enter()
    ticket.reconcile(found=1, kept=1)
    assert gate.enter()


def test_the_reservation_follows_the_running_mean(log: Log, clock: Clock):
    gate = Gate(log, clock, first_expected_faces=0)
    assert gate.admission.expected_faces == 1
    for _ in range(200):
        ticket = gate.enter()
        ticket.reconcile(found=12, kept=12)
        leave(ticket)
    assert gate.admission.expected_faces == 12
    for _ in range(200):
        ticket = gate.enter()
        ticket.reconcile(found=0, kept=0)
        leave(ticket)
    assert gate.admission.expected_faces == 1


def test_the_mean_is_of_faces_found_and_a_caller_who_wants_fewer_reserves_fewer(log: Log, clock: Clock):
    gate = Gate(log, clock, first_expected_faces=8)
    for _ in range(50):
        ticket = gate.enter(max_faces=1)
        assert gate.admission.faces_in_flight == 1
        ticket.reconcile(found=8, kept=1)
        leave(ticket)
    assert gate.admission.expected_faces == 8


def test_crops_reserve_exactly_what_they_are(log: Log, clock: Clock):
    gate = Gate(log, clock)
    with gate.admission.admit_crops(size_bytes=10, priority=BULK, forecast=IN_TIME, faces=37):
        assert gate.admission.faces_in_flight == 37
    assert gate.admission.faces_in_flight == 0


def test_retry_after_is_the_time_that_what_is_in_flight_takes_at_the_measured_rate(log: Log, clock: Clock):
    gate = Gate(log, clock, max_images=10)
    tickets = [gate.enter() for _ in range(10)]
    for ticket in tickets[:5]:
        clock.now_s += 0.2
        leave(ticket)
    gate.count(INTERACTIVE)
    with pytest.raises(OverloadedError) as caught:
        gate.enter()
    assert caught.value.retry_after_s == pytest.approx(10 * 0.2)


def test_requests_that_fail_do_not_look_like_speed(log: Log, clock: Clock):
    gate = Gate(log, clock, max_images=2)
    ticket = gate.enter()
    clock.now_s += 1.0
    leave(ticket)
    for _ in range(20):
        with pytest.raises(KeyError), gate.admission.admit(size_bytes=1, priority=INTERACTIVE, forecast=IN_TIME):
            raise KeyError
    gate.count(INTERACTIVE)
    with pytest.raises(OverloadedError) as caught:
        gate.enter()
    assert caught.value.retry_after_s == pytest.approx(2.0)


def test_time_with_nothing_in_flight_does_not_look_like_slowness(log: Log, clock: Clock):
    gate = Gate(log, clock, max_images=1)
    for _ in range(3):
        ticket = gate.enter()
        clock.now_s += 0.5
        leave(ticket)
        clock.now_s += 1000.0
    gate.enter()
    with pytest.raises(OverloadedError) as caught:
        gate.enter()
    assert caught.value.retry_after_s == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_images", 0),
        ("max_inflight_bytes", 0),
        ("max_inflight_faces", 0),
        ("bulk_ceiling", 0.0),
        ("bulk_ceiling", 1.5),
        ("deadline_share", 0.0),
        ("deadline_share", 1.1),
        ("first_expected_faces", -1.0),
        ("first_expected_faces", float("inf")),
    ],
)
def test_a_setting_out_of_range_is_named_with_its_value(field: str, value: float):
    with pytest.raises(ValueError, match=rf"{field} must be .*got {value}"):
        AdmissionConfig(**{field: value})


def test_room_can_be_asked_for_beforehand_and_takes_none(log: Log, clock: Clock):
    gate = Gate(log, clock, max_images=3)
    gate.count(INTERACTIVE)
    with pytest.raises(OverloadedError) as caught:
        gate.admission.check_room(INTERACTIVE, left_s=1.0)
    assert caught.value.retry_after_s > 0
    assert log.refusals == [(Bound.IMAGES, INTERACTIVE)] * 2
    with pytest.raises(DeadlineError):
        gate.admission.check_room(INTERACTIVE, left_s=0.0)
    gate.admission.check_room(BULK, left_s=1.0)
    assert gate.admission.images_in_flight == 3
