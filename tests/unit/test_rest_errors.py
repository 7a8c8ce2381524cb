from ferserve.faces.errors import InvalidRequestError
from ferserve.serving.rest_errors import error_detail
from ferserve.serving.status import MAX_MESSAGE_CHARS


def test_a_message_that_quotes_a_long_request_is_cut():
    detail = error_detail(InvalidRequestError("x" * 10_000), "id")
    assert detail.message == "x" * MAX_MESSAGE_CHARS
