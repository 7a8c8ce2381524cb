"""The corpus of damaged inputs is the same everywhere, and what judges the answers does judge."""

import os
import subprocess
import sys
from pathlib import Path
from random import Random

import numpy as np
import pytest
from tests.damaged.corpus import KINDS, corpus, sample
from tests.damaged.delivery import judge
from tests.damaged.expected import (
    ANSWERED,
    CLOSED,
    GRPC_CODE,
    GRPC_TOO_LARGE,
    HTTP_STATUS,
    Answer,
    Decodes,
    Expected,
    fault,
)
from tests.damaged.inputs import Damaged, Picture, RpcStream
from tests.damaged.large_bodies import LIMIT_BYTES, oversized
from tests.damaged.pictures import ENCODERS, whole
from tests.e2e.growth import growth

from ferserve.serving.status import STATUS

ROOT = Path(__file__).parents[2]
REFUSED = Expected(reasons=frozenset({"INVALID_IMAGE"}))
PERHAPS = Expected(reasons=frozenset({"INVALID_IMAGE"}), decodes=Decodes.PERHAPS)
ALWAYS = Expected(decodes=Decodes.ALWAYS)
GOOD = Answer(door="REST", code="200", reason=ANSWERED, size=(64, 64))


def refusal(code="400", reason="INVALID_IMAGE", message="expected a whole picture, got a damaged one"):
    return Answer(door="REST", code=code, reason=reason, message=message)


def test_there_are_two_thousand_under_names_of_their_own():
    inputs = corpus()
    assert len(inputs) == sum(KINDS.values()) == 2000
    assert len({one.name for one in inputs}) == 2000
    assert len({one.kind for one in inputs}) == len(KINDS)


def test_a_sample_has_some_of_each_kind():
    chosen = sample(60)
    assert len({one.kind for one in chosen}) == len(KINDS)
    assert 50 <= len(chosen) <= 80
    assert [one.name for one in sample(60)] == [one.name for one in chosen]


def test_the_same_seed_makes_the_same_bytes_in_another_process(tmp_path):
    def printed(seed, hash_seed, *more):
        command = [sys.executable, "-m", "tests.damaged", "--count", "60", "--seed", seed, *more]
        environment = os.environ | {"PYTHONHASHSEED": hash_seed}
        return subprocess.run(command, check=True, capture_output=True, cwd=ROOT, env=environment).stdout

    first = printed("1", "0", "--out", str(tmp_path / "new"))
    assert len(list((tmp_path / "new").iterdir())) == len(sample(60, seed=1))
    assert printed("1", "7") == first
    assert printed("2", "0") != first


@pytest.mark.parametrize("index", range(7))
def test_a_large_body_is_above_the_limit(index):
    message = oversized(Random(0), index, huge_bytes=LIMIT_BYTES + 1).make()
    size = len(message.data) if hasattr(message, "data") else len(message.body)
    assert size > LIMIT_BYTES


@pytest.mark.parametrize("name", ENCODERS)
def test_every_whole_picture_is_honest(name):
    assert fault(ALWAYS, GOOD, whole(name, 64)) is None


@pytest.mark.parametrize(
    ("expected", "answer"),
    [
        (REFUSED, refusal()),
        (PERHAPS, refusal()),
        (PERHAPS, GOOD),
        (ALWAYS, GOOD),
        (Expected(reasons=frozenset({CLOSED})), Answer(door="socket", code="", reason=CLOSED)),
        (
            Expected(reasons=frozenset({GRPC_TOO_LARGE})),
            Answer(door="gRPC", code="RESOURCE_EXHAUSTED", reason=GRPC_TOO_LARGE),
        ),
        (REFUSED, refusal(code="INVALID_ARGUMENT")),
    ],
)
def test_right_answers_pass(expected, answer):
    assert fault(expected, answer) is None


@pytest.mark.parametrize(
    ("expected", "answer", "wrong"),
    [
        (PERHAPS, refusal(code="500", reason="INTERNAL"), "no reason of the table"),
        (PERHAPS, refusal(code="UNKNOWN", reason="no reason"), "no reason of the table"),
        (PERHAPS, refusal(code="415"), "came with code 415, expected 400"),
        (PERHAPS, refusal(code="INTERNAL"), "came with code INTERNAL, expected INVALID_ARGUMENT"),
        (PERHAPS, refusal(message=""), "without a message"),
        (PERHAPS, refusal(message="x" * 401), "401 characters"),
        (PERHAPS, refusal(message=f"cannot open {ROOT}/model"), "a path of the server"),
        (PERHAPS, refusal(message=f"in {np.__file__}"), "a path of the server"),
        (PERHAPS, refusal(message="/tmp/upload-1 is no picture"), "a path of the server"),
        (PERHAPS, refusal(message="ValueError: bad"), "internals"),
        (PERHAPS, refusal(message="<_io.BytesIO object at 0x7f5079b54490>"), "internals"),
        (REFUSED, GOOD, "expected a refusal"),
        (ALWAYS, refusal(), "expected an answer"),
        (REFUSED, refusal(code="415", reason="UNSUPPORTED_MEDIA"), "expected one of INVALID_IMAGE"),
        (PERHAPS, Answer(door="socket", code="", reason=CLOSED), "expected one of INVALID_IMAGE"),
    ],
)
def test_wrong_answers_do_not(expected, answer, wrong):
    assert wrong in fault(expected, answer)


def test_an_answer_to_what_is_no_picture_is_dishonest():
    picture = whole("png", 64)
    assert fault(PERHAPS, GOOD, picture) is None
    assert "Pillow does not read it" in fault(PERHAPS, GOOD, picture[: len(picture) // 2])
    assert "Pillow reads (96, 96)" in fault(PERHAPS, GOOD, whole("png", 96))


def test_doors_that_disagree_are_a_fault():
    one = Damaged(kind="k", index=0, what="w", make=lambda: None, expected=PERHAPS)
    picture = Picture(data=whole("png", 64))
    assert judge(one, picture, [GOOD, GOOD]) == []
    assert "the doors disagree" in judge(one, picture, [GOOD, refusal()])[0]


def test_a_frame_without_an_answer_is_a_fault():
    one = Damaged(kind="k", index=0, what="w", make=lambda: None, expected=REFUSED)
    stream = RpcStream(frames=(b"", b""))
    assert judge(one, stream, [refusal(), refusal()]) == []
    assert judge(one, stream, [refusal()]) == ["1 answers to 2 frames"]
    assert judge(one, RpcStream(frames=(b"", b""), leave_after=1), [refusal()]) == []


def test_the_agreed_table_is_the_products():
    own = {str(reason): (status.grpc_code.name, status.http_status) for reason, status in STATUS.items()}
    for reason, status in HTTP_STATUS.items():
        if reason != ANSWERED:
            assert own[reason] == (GRPC_CODE[reason], status)


@pytest.mark.parametrize("leak_bytes", [0, 1000])
def test_growth_is_found_under_the_steps_of_an_allocator(leak_bytes):
    requests = np.arange(50, 10_001, 50, dtype=np.float64)
    noise = np.random.default_rng(0).normal(0, 200_000, len(requests))
    warm_up = 20e6 * np.minimum(requests / 4000, 1)
    resident = np.round((200e6 + warm_up + leak_bytes * requests + noise) / 4096) * 4096
    found = growth(requests, resident)
    assert found.low < leak_bytes < found.high
    assert found.high - found.low < 200
