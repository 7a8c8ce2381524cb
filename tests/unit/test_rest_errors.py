import json

import pytest

from ferserve.faces.errors import InvalidRequestError, Reason
from ferserve.serving.errors import OverloadedError
from ferserve.serving.rest_errors import error_detail, error_response
from ferserve.serving.status import MAX_MESSAGE_CHARS, STATUS


def test_a_message_that_quotes_a_long_request_is_cut():
    detail = error_detail(InvalidRequestError("x" * 10_000), "id")
    assert detail.message == "x" * MAX_MESSAGE_CHARS


@pytest.mark.parametrize("reason", Reason)
def test_under_v2_every_error_is_in_the_open_inference_protocols_form(reason):
    error = OverloadedError("what came", retry_after_s=0.25)
    error.reason = reason
    answer = error_response(error, "mine", "/v2/models/m/infer")
    body = json.loads(answer.body)
    assert answer.status_code == STATUS[reason].http_status
    assert (body["reason"], body["request_id"]) == (reason, "mine")
    assert isinstance(body["error"], str)
    if reason is not Reason.INTERNAL:
        assert (body["error"], body["retry_after_ms"], answer.headers["Retry-After"]) == ("what came", 250, "1")
    assert isinstance(json.loads(error_response(error, "mine", "/v1/v2").body)["error"], dict)
