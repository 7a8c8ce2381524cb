import io
import json
import logging

import pytest

from ferserve.faces.errors import Reason
from ferserve.serving.logs import REQUEST_ID, JsonFormatter, LogConfig, LogFormat, TextFormatter, configure_logging
from ferserve.serving.metrics import Metrics
from ferserve.serving.observing import LoggedRequests


def record(**fields) -> logging.LogRecord:
    made = logging.makeLogRecord({"name": "ferserve.x", "levelname": "INFO", "msg": "began %s", "args": ("now",)})
    made.created, made.msecs = 0.0, 7.0
    vars(made).update(fields)
    return made


@pytest.fixture
def root_logger():
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield root
    root.handlers, root.level = handlers, level


def test_text_has_time_level_logger_message_and_fields():
    line = TextFormatter().format(record(request_id="r1"))
    assert line == "1970-01-01T00:00:00.007Z INFO ferserve.x: began now request_id=r1"


def test_json_is_one_object_a_line_with_the_fields_beside():
    line = JsonFormatter().format(record(request_id="r1", message_count=2))
    assert "\n" not in line
    assert json.loads(line) == {
        "time": "1970-01-01T00:00:00.007Z",
        "level": "info",
        "logger": "ferserve.x",
        "message": "began now",
        "request_id": "r1",
        "message_count": 2,
    }


def test_a_traceback_stays_within_the_json_line():
    with pytest.raises(RuntimeError) as caught:
        raise RuntimeError("broken")
    line = JsonFormatter().format(record(exc_info=(caught.type, caught.value, caught.tb)))
    assert "\n" not in line
    assert "RuntimeError: broken" in json.loads(line)["error"]


def test_a_field_cannot_pass_for_the_level_or_the_message():
    line = json.loads(JsonFormatter().format(record(level="error", logger="x")))
    assert (line["level"], line["logger"]) == ("info", "ferserve.x")


def test_configured_logging_goes_to_the_stream_from_its_level_on(root_logger):
    stream = io.StringIO()
    configure_logging(LogConfig(level="warning", format=LogFormat.JSON), stream)
    logging.getLogger("ferserve.y").info("quiet")
    logging.getLogger("ferserve.y").warning("loud")
    assert [json.loads(line)["message"] for line in stream.getvalue().splitlines()] == ["loud"]
    assert root_logger.level == logging.WARNING


def test_an_unknown_level_is_named():
    with pytest.raises(ValueError, match=r"level must be one of .*'chatty'"):
        LogConfig(level="chatty")


@pytest.mark.usefixtures("root_logger")
def test_what_decoders_say_of_callers_files_and_forms_is_left_out():
    stream = io.StringIO()
    configure_logging(LogConfig(level="debug"), stream)
    logging.getLogger("PIL.TiffImagePlugin").error("More samples per pixel than can be decoded")
    logging.getLogger("python_multipart.multipart").warning("Found invalid character 13 in header at 76")
    assert stream.getvalue() == ""


@pytest.mark.usefixtures("root_logger")
def test_whatever_is_logged_within_a_request_carries_its_id():
    stream = io.StringIO()
    configure_logging(LogConfig(format=LogFormat.JSON), stream)
    token = REQUEST_ID.set("r7")
    logging.getLogger("ferserve.y").warning("within")
    logging.getLogger("ferserve.y").warning("of another", extra={"request_id": "r8"})
    REQUEST_ID.reset(token)
    logging.getLogger("ferserve.y").warning("after")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line.get("request_id") for line in lines] == ["r7", "r8", None]


@pytest.mark.usefixtures("root_logger")
def test_a_logged_request_says_what_was_asked_and_how_it_ended_and_is_counted_too():
    stream, metrics = io.StringIO(), Metrics()
    configure_logging(LogConfig(format=LogFormat.JSON, requests=True), stream)
    LoggedRequests(metrics).request_done("Analyze", Reason.OVERLOADED, 0.0123)
    LoggedRequests(metrics).encoded(0.5)
    line = json.loads(stream.getvalue())
    assert {key: line[key] for key in ("message", "method", "code", "duration_ms")} == {
        "message": "answered",
        "method": "Analyze",
        "code": "OVERLOADED",
        "duration_ms": 12.3,
    }
    labels = {"method": "Analyze", "code": "OVERLOADED"}
    assert metrics.registry.get_sample_value("ferserve_requests_total", labels) == 1
    assert metrics.registry.get_sample_value("ferserve_stage_duration_seconds_sum", {"stage": "encode"}) == 0.5
