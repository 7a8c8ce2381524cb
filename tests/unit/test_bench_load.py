import math

import pytest

from ferserve.serving.benchmarks.capacity import WARM_UP
from ferserve.serving.benchmarks.estimates import Estimate
from ferserve.serving.benchmarks.exchanges import Ending, Exchange, ending_of_reason
from ferserve.serving.benchmarks.gateways import UNKNOWN, Counters, CpuShares
from ferserve.serving.benchmarks.load import Latency, LoadReport, Mix, Offer, _latencies, _rate, batch_counts
from ferserve.serving.benchmarks.protocols import ProtocolName
from ferserve.serving.benchmarks.transports import Work
from ferserve.serving.cli import main
from ferserve.serving.commands.bench_report import print_capacity, print_loads
from ferserve.serving.commands.figures import plain

NAN = math.nan


def work(name: str, faces: int = 1) -> Work:
    return Work(name=name, method="Analyze", body=b"", timeout_s=1.0, faces=faces)


SELFIE, CROWD = work("selfie"), work("crowd", 25)
MIX = Mix(parts=((SELFIE, 0.75), (CROWD, 0.25)))


def test_a_mix_is_asked_by_its_shares():
    assert MIX.faces == pytest.approx(7.0)
    rates = {stream.work.name: stream.rate_per_s for stream in MIX.streams(40.0, seed=3)}
    assert rates == {"selfie": 30.0, "crowd": 10.0}
    assert len({stream.seed for stream in MIX.streams(40.0, seed=3)}) == 2
    drawn = MIX.drawn(seed=3)
    names = [next(drawn).name for _ in range(2000)]
    assert names.count("crowd") == pytest.approx(500, abs=80)
    again = MIX.drawn(seed=3)
    assert names[:50] == [next(again).name for _ in range(50)]


@pytest.mark.parametrize("shares", [(), (0.5, 0.6), (1.0, 0.0)])
def test_shares_sum_to_one(shares):
    with pytest.raises(ValueError, match="shares must be above 0 and sum to 1, got"):
        Mix(parts=tuple((SELFIE, share) for share in shares))


@pytest.mark.parametrize(("name", "value"), [("rate_per_s", 0.0), ("callers", 0), ("duration_s", 1.0)])
def test_an_offer_out_of_range_is_named(name, value):
    with pytest.raises(ValueError, match=rf"{name} must be .*got {value}"):
        Offer(**{name: value})


def exchange(due_s: float, took_s: float, *, kind: Work = SELFIE, ending: Ending = Ending.OK) -> Exchange:
    return Exchange(
        stream=kind.name, due_s=due_s, sent_s=due_s, done_s=due_s + took_s, timeout_s=1.0, ending=ending,
        faces=kind.faces,
    )  # fmt: skip


def test_rates_count_what_was_answered_in_time_after_the_warm_up():
    steady = [exchange(number / 10, 0.05) for number in range(80)]
    others = [exchange(5.0, 1.5), exchange(5.0, 0.1, ending=Ending.REFUSED), exchange(4.0, 0.5, kind=CROWD)]
    assert _rate(steady + others, 8.0).value == pytest.approx((60 + 1) / 6)
    assert _rate(steady + others, 8.0, faces=True).value == pytest.approx((60 + 25) / 6)


def test_latencies_are_told_apart_by_kind():
    exchanges = [exchange(8 * WARM_UP + number / 20, 0.1) for number in range(95)]
    exchanges += [exchange(3.0, 0.9, kind=CROWD), exchange(5.0, 0.9, kind=CROWD), exchange(0.5, 9.0)]
    found = _latencies(exchanges, MIX, 8.0)
    assert {kind: latency.answers for kind, latency in found.items()} == {"all": 97, "selfie": 95, "crowd": 2}
    assert (found["selfie"].p99_ms.value, found["crowd"].p50_ms.value) == (pytest.approx(100), pytest.approx(900))
    assert found["all"].p99_ms.value == pytest.approx(900)


def test_batches_are_counted_by_bucket():
    before = Counters(faces_computed=1, faces_answered=1, expired=0, batches=((1.0, 2.0), (4.0, 2.0), (math.inf, 3.0)))
    after = Counters(faces_computed=9, faces_answered=9, expired=0, batches=((1.0, 5.0), (4.0, 5.0), (math.inf, 7.0)))
    assert batch_counts(after.since(before).batches) == {1.0: 3, math.inf: 1}
    assert batch_counts(UNKNOWN.since(UNKNOWN).batches) == {}


def test_reasons_are_endings():
    assert [ending_of_reason(reason) for reason in ("OVERLOADED", "DEADLINE", "SOMETHING_NEW")] == [
        Ending.REFUSED, Ending.EXPIRED, Ending.FAILED,
    ]  # fmt: skip


def sure(value: float) -> Estimate:
    return Estimate(value=value, low=value, high=value)


def report(callers: int, goodput: float) -> LoadReport:
    latency = Latency(answers=9, p50_ms=sure(10.0), p95_ms=sure(20.0), p99_ms=sure(NAN))
    return LoadReport(
        protocol=ProtocolName.REST,
        loop="closed loop",
        callers=callers,
        offered_per_s=12.0,
        goodput_per_s=sure(goodput),
        faces_per_s=sure(33.0),
        latency={"all": latency, "crowd": latency},
        endings={"ok": 9, "refused": 2},
        late=1,
        lag_p50_ms=0.1,
        lag_p99_ms=0.2,
        batches={1.0: 3, math.inf: 1},
        cpu=CpuShares(generator=0.1, gateway=NAN),
        cpu_ms_per_answer=NAN,
        memory_mib=200.0,
        peak_memory_mib=250.0,
    )


def test_a_load_is_printed_with_all_that_was_measured(capsys):
    print_loads([report(4, 11.5)], {"cpu": "a [fast] one"})
    printed = capsys.readouterr().out
    for words in ("rest", "11.5", "33.0", "crowd: p95 ms", "1: 75%, more: 25%", "10% + -", "200, 250", "a [fast] one"):
        assert words in printed


def test_the_capacity_table_marks_the_best_row(capsys):
    print_capacity({"photos": [report(1, 5.0), report(2, 9.0)]}, {"cpu": "x"})
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if "2 *" in line]
    assert not [line for line in lines if "1 *" in line]


def test_what_was_not_observed_is_null():
    told = plain({"loads": [report(1, 5.0)]})
    assert told["loads"][0]["cpu"] == {"generator": 0.1, "gateway": None, "others": None}
    assert told["loads"][0]["latency"]["all"]["p99_ms"]["value"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["load", "--target", "127.0.0.1:1", "--model", "x.mar"], "--target: expected none with --model"),
        (["load", "--seconds", "1"], "--seconds"),
        (["load", "--protocol", "pigeon"], "pigeon"),
        (["load", "--crowds", "0.1"], "--crowds: expected a photo with a face"),
        (["load", "--against", "fer"], "--against: expected photos"),
        (["load", "absent.jpg"], "does not exist"),
        (["capacity", "--crowds", "2"], "--crowds"),
    ],
)
def test_a_wrong_call_says_so_before_anything_is_measured(arguments, message, capfd):
    with pytest.raises(SystemExit) as left:
        main(["bench", *arguments])
    out, err = capfd.readouterr()
    assert (left.value.code, out) == (2, "")
    assert message in " ".join(err.split())
