import json
import math

import pytest

from ferserve.serving.benchmarks.capacity import Step
from ferserve.serving.benchmarks.drain import DrainConfig, DrainReport
from ferserve.serving.benchmarks.estimates import Estimate
from ferserve.serving.benchmarks.fairness import Arm, FairnessConfig, FairnessReport
from ferserve.serving.benchmarks.gateways import CpuShares
from ferserve.serving.benchmarks.overload import Latency, Level, OverloadConfig, OverloadReport
from ferserve.serving.commands.figures import plain
from ferserve.serving.commands.stress_report import print_report

KNOWN, UNKNOWN = Estimate(value=12.25, low=11.0, high=13.5), Estimate(value=math.nan, low=math.nan, high=math.nan)
MACHINE = {"cpu": "a [fast] one", "cores": 2}
LEVEL = Level(
    multiple=3.0,
    offered_per_s=36.0,
    goodput_per_s=KNOWN,
    endings={"ok": 240, "refused": 480},
    late=0,
    untold=7,
    answers=Latency(p50_ms=KNOWN, p99_ms=KNOWN),
    refusals=Latency(p50_ms=UNKNOWN, p99_ms=UNKNOWN),
    lag_p99_ms=0.5,
    faces_in_vain=math.nan,
    dropped=3.0,
    cpu=CpuShares(generator=0.02, gateway=math.nan),
)
OVERLOAD = OverloadReport(
    steps=(Step(callers=4, answers_per_s=KNOWN),),
    levels=(LEVEL,),
    goodput_over_peak=Estimate(value=0.987, low=0.9, high=1.1),
    per_core_over_peak=Estimate(value=0.991, low=0.95, high=1.2),
)
ARM = Arm(
    company="crowds of 199",
    others_per_s=0.5,
    selfies=1000,
    p50_ms=KNOWN,
    p99_ms=KNOWN,
    endings={"selfie ok": 1000, "others refused": 2},
    cpu=CpuShares(generator=0.01, gateway=0.5),
)
FAIRNESS = FairnessReport(
    selfie_capacity_per_s=30.0, crowd_capacity_per_s=3.0, selfies_a_crowd=10.0, selfies_per_s=7.5, arms=(ARM,),
    p99_over_same_load=KNOWN,
)  # fmt: skip
DRAIN = DrainReport(
    offered_per_s=20.0, accepted_at_signal=9, answered_after=10, sent_before={"ok": 40}, sent_after={"unavailable": 30},
    lost=0, exit_code=0, took_s=1.5,
)  # fmt: skip


@pytest.mark.parametrize(
    ("report", "words"),
    [
        (OVERLOAD, ["12.2 (11.0 to 13.5)", "240", "480", "2% + -", "0.987 (0.900 to 1.100)", "0.991 (0.950 to 1.200)"]),
        (FAIRNESS, ["crowds of 199", "2 others refused", "a crowd counts as 10.0 selfies", "12.250"]),
        (DRAIN, ["SIGTERM: 9", "lost: 0", "exit code 0 after 1.50 s"]),
    ],
)
def test_a_report_says_what_was_measured_and_on_what(report, words, capsys):
    print_report(report, MACHINE)
    printed = capsys.readouterr().out
    for word in (*words, "cpu a [fast] one"):
        assert word in printed


def test_what_was_not_observed_is_null():
    told = json.loads(json.dumps(plain(OVERLOAD), allow_nan=False))
    (level,) = told["levels"]
    assert level["refusals"]["p99_ms"] == {"value": None, "low": None, "high": None}
    assert level["faces_in_vain"] is None
    assert (level["untold"], level["goodput_per_s"]["value"]) == (7, 12.25)


@pytest.mark.parametrize(
    ("config", "values"),
    [
        (OverloadConfig, {"multiples": ()}),
        (OverloadConfig, {"multiples": (1.0, 0.0)}),
        (OverloadConfig, {"level_s": 1.0}),
        (FairnessConfig, {"selfie_share": 0.0}),
        (FairnessConfig, {"others_share": 1.0}),
        (FairnessConfig, {"rounds": 0}),
        (FairnessConfig, {"turn_s": 1.0}),
        (DrainConfig, {"before_s": 0.0}),
    ],
)
def test_a_setting_out_of_range_is_named_with_its_value(config, values):
    ((name, value),) = values.items()
    with pytest.raises(ValueError, match=rf"{name} must be .*got") as caught:
        config(**values)
    assert str(value) in str(caught.value)
