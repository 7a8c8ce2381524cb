"""Requests that break the gateway's own OpenAPI document, made from it by schemathesis: refused, and nothing leaks."""

import json
import sys
from collections import Counter
from contextlib import suppress
from itertools import product

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.generation import GenerationMode
from tests.damaged.expected import Answer, wrong_message

from ferserve.faces.errors import Reason

pytestmark = pytest.mark.e2e
MAY_FAIL = {503: {Reason.NOT_READY, Reason.WORKER_FAILED}, 504: {Reason.DEADLINE}}
"""What of 500 and above the table of errors has, and a caller may bring about."""
NOT_READY = '{"ready":false}'
"""Of the Open Inference Protocol, for a model that is not there; no error."""
FIRST_TURN = 4
MAX_TURNS = 20
SETTINGS = """
[http]
body_timeout_s = 5.0
"""


class Attack:
    """Sends requests and keeps what is wrong with their answers."""

    def __init__(self, address):
        self.schema = schemathesis.openapi.from_url(f"{address}/openapi.json")
        self.session = requests.Session()
        self.codes = Counter()
        self.faults = []

    def run(self, count):
        """Ask at least `count` times: for each operation as much that breaks its description as what keeps it.

        Each turn draws anew. An operation that gives hardly anything in one has given all there is, as where whatever
        stands in a path keeps its description, and is not asked again: to look for more takes seconds each time.
        """
        operations = [found.ok() for found in self.schema.get_all_operations()]
        sources = list(product(operations, (GenerationMode.NEGATIVE, GenerationMode.POSITIVE)))
        for turn in range(MAX_TURNS):
            missing = count - self.codes.total()
            if missing <= 0:
                return
            each = FIRST_TURN if turn == 0 else -(-missing // len(sources))
            sources = [source for source in sources if self._ask(*source, each, turn) >= each / 2]

    def _ask(self, operation, mode, count, turn) -> int:
        """How many requests that operation gave."""
        before = self.codes.total()
        drawing = settings(
            max_examples=count,
            phases=[Phase.generate],  # a fault is kept; to look for a smaller one would be thousands more
            suppress_health_check=list(HealthCheck),
            deadline=None,
            database=None,
        )
        with suppress(Unsatisfiable):  # what takes nothing cannot be asked wrongly
            seed(turn)(drawing(given(operation.as_strategy(generation_mode=mode))(self._send)))()
        return self.codes.total() - before

    def _send(self, case):
        try:
            answer = case.call(session=self.session, timeout=60)
        except (requests.exceptions.InvalidHeader, requests.exceptions.InvalidURL, UnicodeError):
            return  # the client cannot even write it; raw bytes are what tests/damaged is for
        self.codes[answer.status_code] += 1
        fault = _fault(answer)
        if fault is not None:
            self.faults.append(f"{case.method} {answer.request.url}: {fault}")


def _fault(answer) -> str | None:
    if answer.status_code == 503 and answer.text == NOT_READY:
        return None
    reason, message = _error_in(answer)
    if answer.status_code >= 500 and reason not in MAY_FAIL.get(answer.status_code, ()):
        return f"{answer.status_code} {reason}: {answer.text[:300]}"
    if answer.status_code >= 400:
        return wrong_message(Answer(door="rest", code=str(answer.status_code), reason=reason, message=message))
    return None


def _error_in(answer) -> tuple[str, str]:
    """Reason and message, in the form of `/v1` or in that of the Open Inference Protocol."""
    try:
        error = json.loads(answer.text)["error"]
    except (ValueError, KeyError, TypeError):
        return "", answer.text
    return (error["reason"], error["message"]) if isinstance(error, dict) else ("", error)


@pytest.fixture
def attack(start_gateway, tiny_archive, tmp_path):
    settings_file = tmp_path / "short.toml"
    settings_file.write_text(SETTINGS)
    gateway = start_gateway("--model", str(tiny_archive), "--config", str(settings_file))
    attack = Attack(gateway.rest)
    yield attack
    attack.session.close()
    log = gateway.log.read_text()
    assert gateway.process.poll() is None
    assert "Traceback" not in log
    assert " ERROR " not in log
    assert requests.get(f"{gateway.rest}/readyz", timeout=30).status_code == 200


def held_out(attack, count):
    attack.run(count)
    sys.stdout.write(f"\n{attack.codes.total()} answers: {dict(sorted(attack.codes.items()))}\n")
    assert not attack.faults, "\n".join(attack.faults[:20])
    assert {200, 400, 404, 415} <= set(attack.codes)


def test_hundreds_of_malformed_requests_get_in_nowhere(attack):
    held_out(attack, 240)


@pytest.mark.long
def test_ten_thousand_malformed_requests_get_in_nowhere(attack):
    held_out(attack, 10_000)
    assert attack.codes.total() >= 10_000
