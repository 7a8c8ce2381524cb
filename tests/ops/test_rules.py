"""Every alert fires when it must and stays quiet when it nearly must: scenarios in minutes, judged by promtool."""

import re
import subprocess
from dataclasses import dataclass, field

import pytest
import yaml

from ferserve.faces.errors import Reason

CALLERS_FAULT = {
    Reason.INVALID_REQUEST, Reason.INVALID_IMAGE, Reason.UNSUPPORTED_MEDIA, Reason.IMAGE_TOO_LARGE,
    Reason.MODEL_NOT_FOUND, Reason.UNAUTHENTICATED, Reason.FORBIDDEN, Reason.PURPOSE_REFUSED, Reason.RATE_LIMITED,
    Reason.CANCELLED,
}  # fmt: skip
REFUSALS = {Reason.OVERLOADED}
JOB = 'job="ferserve",instance="a"'
MODEL = f'{JOB},model="mobilenet"'
PHOTOS = f'{JOB},method="Analyze",code="OK"'
OK = f"ferserve_requests_total{{{PHOTOS}}}"
FAILED = f'ferserve_requests_total{{{JOB},method="Analyze",code="INTERNAL"}}'
NO_PICTURES = f'ferserve_requests_total{{{JOB},method="Analyze",code="INVALID_IMAGE"}}'
IN_TIME = f'ferserve_request_duration_seconds_bucket{{{PHOTOS},le="1.0"}}'
REFUSED = f'ferserve_refused_total{{{JOB},reason="time",priority="bulk"}}'
IN_FLIGHT = f"ferserve_in_flight_images{{{JOB}}}"
WORKER_FAILED = f"ferserve_worker_failed_faces_total{{{MODEL}}}"
WORKER_UP = f'ferserve_worker_up{{{MODEL},worker="w:1"}}'
LOST = f"ferserve_preparers_lost_total{{{JOB}}}"
SECOND_UP = 'up{job="ferserve",instance="b"}'
BUILD = f'ferserve_build_info{{{JOB},version="1"}}'
FACES = f"ferserve_faces_total{{{MODEL}}}"
UNCERTAIN = f"ferserve_uncertain_faces_total{{{MODEL}}}"
NO_FACE = f"ferserve_images_without_face_total{{{JOB}}}"
HAPPY = f'ferserve_top_expression_faces_total{{{MODEL},expression="happy"}}'
NEUTRAL = f'ferserve_top_expression_faces_total{{{MODEL},expression="neutral"}}'
HAPPY_REFERENCE = f'ferserve_reference_share{{{MODEL},expression="happy"}}'
NEUTRAL_REFERENCE = f'ferserve_reference_share{{{MODEL},expression="neutral"}}'
CERTIFICATE = f'ferserve_certificate_expiry_timestamp_seconds{{{JOB},certificate="server"}}'
SECOND_CERTIFICATE = CERTIFICATE.replace('instance="a"', 'instance="b"')
SECOND = 'job="ferserve",instance="b",model="mobilenet"'
SECOND_ARCHIVE = f'ferserve_archive_info{{{SECOND},archive_sha256="2",precision="fp32"}}'
SECOND_PRECISION = f'ferserve_archive_info{{{SECOND},archive_sha256="1",precision="int8"}}'
DAY_S = 86400
"""Scenarios begin at 0 s, and are judged some hours later."""
CALM = {
    f"up{{{JOB}}}": "1x200",
    BUILD: "1x200",
    OK: "0+600x200",
    f"ferserve_request_duration_seconds_count{{{PHOTOS}}}": "0+600x200",
    IN_TIME: "0+595x200",
    REFUSED: "0x200",
    IN_FLIGHT: "3x200",
    f"ferserve_in_flight_images_limit{{{JOB}}}": "64x200",
    WORKER_FAILED: "0x200",
    WORKER_UP: "1x200",
    LOST: "0x200",
    FACES: "0+600x200",
    UNCERTAIN: "0+120x200",
    NO_FACE: "0+60x200",
    f"ferserve_image_faces_count{{{JOB}}}": "0+600x200",
    HAPPY: "0+200x200",
    NEUTRAL: "0+400x200",
    HAPPY_REFERENCE: "0.4x200",
    NEUTRAL_REFERENCE: "0.6x200",
    CERTIFICATE: f"{90 * DAY_S}x200",
    f'ferserve_archive_info{{{MODEL},archive_sha256="1",precision="fp32"}}': "1x200",
}
"""Ten requests a second, one face each; a value a minute. What a scenario names it replaces."""


@dataclass(frozen=True)
class Scenario:
    """What differs from calm hours, and which alerts fire after so many minutes: these and no others.

    `near` are alerts that this nearly sets off.
    """

    name: str
    changes: dict[str, str] = field(default_factory=dict)
    firing: str = ""
    near: str = ""
    at_min: int = 130


BOTH_ERRORS = "FerserveErrorBudgetFast FerserveErrorBudgetSlow"
BOTH_SLOW = "FerserveLatencyBudgetFast FerserveLatencyBudgetSlow"
ENDS = "FerserveCertificateEnds"
BOTH_CERTIFICATE = f"FerserveCertificateNotRenewed {ENDS}"
FEW_AND_ODD = {FACES: "0+6x200", HAPPY: "0+6x200", NEUTRAL: "0x200", UNCERTAIN: "0+6x200"}
HAPPY_FROM_THE_SECOND_HOUR = {
    HAPPY: "0+60x60 3600+600x140",
    NEUTRAL: "0+540x60 32400x140",
    HAPPY_REFERENCE: "_x200",
    NEUTRAL_REFERENCE: "_x200",
}
SCENARIOS = [
    Scenario("calm hours"),
    Scenario("a tenth fails for hours", {FAILED: "0+67x200"}, BOTH_ERRORS),
    Scenario("half fail for 18 minutes", {FAILED: "0x111 0+600x88"}, "FerserveErrorBudgetFast"),
    Scenario("four of a hundred fail", {FAILED: "0+25x200"}, "FerserveErrorBudgetSlow", "FerserveErrorBudgetFast"),
    Scenario("two of a hundred fail", {FAILED: "0+12x200"}, near="FerserveErrorBudgetSlow"),
    Scenario("most failed for four minutes", {FAILED: "0x120 0+600x4 2400x76"}, near="FerserveErrorBudgetFast"),
    Scenario("half of the requests are no pictures", {NO_PICTURES: "0+600x200"}, near=BOTH_ERRORS),
    Scenario("nine of ten photos are slow", {IN_TIME: "0+60x200"}, BOTH_SLOW),
    Scenario("two of five are slow", {IN_TIME: "0+360x200"}, "FerserveLatencyBudgetSlow", "FerserveLatencyBudgetFast"),
    Scenario("a quarter is slow", {IN_TIME: "0+450x200"}, near="FerserveLatencyBudgetSlow"),
    Scenario("a fifth is refused", {REFUSED: "0+120x200"}, "FerserveRefusing"),
    Scenario("a fifth is refused for eight minutes", {REFUSED: "0x122 0+120x78"}, near="FerserveRefusing"),
    Scenario("nine tenths of the places are taken", {IN_FLIGHT: "60x200"}, "FerserveNearlyFull"),
    Scenario("three quarters of the places are taken", {IN_FLIGHT: "48x200"}, near="FerserveNearlyFull"),
    Scenario("one face in twenty gets no scores", {WORKER_FAILED: "0+30x200"}, "FerserveWorkerFailing"),
    Scenario("a worker failed once", {WORKER_FAILED: "0x127 100x73"}, near="FerserveWorkerFailing"),
    Scenario("a worker is out", {WORKER_UP: "1x110 0x90"}, "FerserveWorkerDown"),
    Scenario("a worker was out for a while", {WORKER_UP: "1x110 0x15 1x80"}, near="FerserveWorkerDown"),
    Scenario("a picture a minute kills its decoder", {LOST: "0+1x200"}, "FerservePreparersDie"),
    Scenario("two processes died", {LOST: "0x120 2x80"}, near="FerservePreparersDie"),
    Scenario("a gateway is gone", {SECOND_UP: "1x120 0x80"}, "FerserveGatewayDown"),
    Scenario("a gateway restarts", {SECOND_UP: "1x123 0x3 1x73"}, near="FerserveGatewayDown"),
    Scenario("no gateway is seen", {BUILD: "1x110 stale"}, "FerserveAbsent"),
    Scenario("the only gateway was replaced", {BUILD: "1x120 stale _x4 1x60"}, near="FerserveAbsent"),
    Scenario("all are happy, against the archive", {HAPPY: "0+600x200", NEUTRAL: "0x200"}, "FerserveDrift"),
    Scenario("all became happy, against the past", HAPPY_FROM_THE_SECOND_HOUR, "FerserveDrift", at_min=190),
    Scenario("a few more are happy", {HAPPY: "0+340x200", NEUTRAL: "0+260x200"}, near="FerserveDrift"),
    Scenario("of few faces all are odd", FEW_AND_ODD, near="FerserveDrift FerserveUncertain"),
    Scenario("two thirds are uncertain", {UNCERTAIN: "0+400x200"}, "FerserveUncertain"),
    Scenario("nine of ten pictures have no face", {NO_FACE: "0+540x200"}, "FerserveFacesMissing"),
    Scenario("seven of ten pictures have no face", {NO_FACE: "0+420x200"}, near="FerserveFacesMissing"),
    Scenario("ten days are left", {CERTIFICATE: f"{10 * DAY_S}x200"}, "FerserveCertificateNotRenewed"),
    Scenario("a day is left", {CERTIFICATE: f"{DAY_S}x200"}, BOTH_CERTIFICATE),
    Scenario("it has ended", {CERTIFICATE: "60x200"}, BOTH_CERTIFICATE),
    Scenario("one gateway has the old one", {SECOND_CERTIFICATE: f"{DAY_S}x200"}, BOTH_CERTIFICATE),
    Scenario("fifteen days are left", {CERTIFICATE: f"{15 * DAY_S}x200"}, near="FerserveCertificateNotRenewed"),
    Scenario("three days are left", {CERTIFICATE: f"{3 * DAY_S}x200"}, "FerserveCertificateNotRenewed", ENDS),
    Scenario("it was renewed at last", {CERTIFICATE: f"{DAY_S}x120 {90 * DAY_S}x79"}, near=BOTH_CERTIFICATE),
    Scenario("without TLS", {CERTIFICATE: "_x200"}, near=BOTH_CERTIFICATE),
    Scenario("two replicas serve two archives", {SECOND_ARCHIVE: "1x200"}, "FerserveMixedArchives"),
    Scenario("two replicas compute in two precisions", {SECOND_PRECISION: "1x200"}, "FerserveMixedArchives"),
    Scenario("a rollout takes twenty minutes", {SECOND_ARCHIVE: "_x110 1x90"}, near="FerserveMixedArchives"),
]


def case(changes: dict[str, str], expression: str, at_min: int, samples: list[tuple[str, float]]) -> dict:
    """One test of promtool's."""
    expected = [{"labels": labels, "value": value} for labels, value in samples]
    return {
        "interval": "1m",
        "input_series": [{"series": series, "values": values} for series, values in (CALM | changes).items()],
        "promql_expr_test": [{"expr": expression, "eval_time": f"{at_min}m", "exp_samples": expected}],
    }


@pytest.fixture
def judge(promtool, rules_file, tmp_path):
    """Let promtool hold the rules against cases."""

    def run(cases: list[dict]) -> str:
        text = {"rule_files": [str(rules_file)], "evaluation_interval": "5m", "tests": cases}
        file = tmp_path / "cases.yaml"
        file.write_text(yaml.safe_dump(text, sort_keys=False), encoding="utf-8")
        command = [promtool, "test", "rules", str(file)]
        run = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
        return "" if run.returncode == 0 else run.stdout + run.stderr

    return run


def test_every_alert_has_a_scenario_that_fires_it_and_one_that_nearly_does(alerts):
    assert {name for scenario in SCENARIOS for name in scenario.firing.split()} == set(alerts)
    assert {name for scenario in SCENARIOS for name in scenario.near.split()} == set(alerts)


def test_exactly_these_alerts_fire(judge):
    firing = 'count by (alertname) (ALERTS{alertstate="firing"})'
    cases = []
    for scenario in SCENARIOS:
        expected = [(f'{{alertname="{name}"}}', 1.0) for name in sorted(scenario.firing.split())]
        cases.append({"name": scenario.name} | case(scenario.changes, firing, scenario.at_min, expected))
    assert not judge(cases)


def test_a_wrong_expectation_is_noticed(judge):
    assert "got" in judge([case({FAILED: "0+67x200"}, "count(ALERTS)", 130, [("{}", 99.0)])])


def test_the_stability_index_is_the_one_of_the_textbook(judge):
    # shares 1/3 and 2/3 against 0.4 and 0.6: (1/3 - 0.4) ln(1/3 / 0.4) + (2/3 - 0.6) ln(2/3 / 0.6)
    labels = '{job="ferserve",model="mobilenet"}'
    expression = "round(job_model:ferserve_top_expression:psi1h, 0.0001)"
    assert not judge([case({}, expression, 90, [(labels, 0.0192)])])


def test_codes_of_the_objectives_are_those_of_the_error_table(rules_file):
    text = rules_file.read_text(encoding="utf-8")
    ours = set(Reason) - CALLERS_FAULT - REFUSALS
    lists = {frozenset(found.split("|")) for found in re.findall(r'code=~"([A-Z_|]+)"', text)}
    assert lists == {frozenset(ours), frozenset({"OK"} | ours | REFUSALS)}


def test_every_alert_has_a_page_that_names_it_and_no_page_is_left_over(alerts, root):
    pages = {root / rule["annotations"]["runbook_url"] for rule in alerts.values()}
    assert pages == set((root / "docs" / "runbooks").glob("*.md"))
    for name, rule in alerts.items():
        assert name in (root / rule["annotations"]["runbook_url"]).read_text(encoding="utf-8")


@pytest.mark.parametrize("severity", ["page", "ticket"])
def test_severities_are_two(alerts, severity):
    assert severity in {rule["labels"]["severity"] for rule in alerts.values()}
    assert {rule["labels"]["severity"] for rule in alerts.values()} == {"page", "ticket"}
