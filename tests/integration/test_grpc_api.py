import asyncio
import logging

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status

from ferserve.faces.errors import FerserveError, InvalidImageError, Reason
from ferserve.serving.access import OPEN
from ferserve.serving.body_budget import BodyBudget
from ferserve.serving.convert import analysis_to_pb, model_to_pb
from ferserve.serving.errors import OverloadedError
from ferserve.serving.grpc_api import (
    MESSAGE_HEADROOM_BYTES,
    SERVICE_NAME,
    ExpressionServicer,
    GrpcConfig,
    build_grpc_server,
)
from ferserve.serving.grpc_calls import GrpcCalls
from ferserve.serving.grpc_requests import Arrivals
from ferserve.serving.health import Health
from ferserve.serving.requests import AnalyzeOptions, Priority
from ferserve.serving.status import STATUS
from ferserve.serving.streams import StreamMode
from ferserve.v1 import expression_pb2 as pb
from ferserve.v1 import expression_service_pb2 as service_pb
from ferserve.v1.expression_service_pb2_grpc import ExpressionServiceStub


@pytest.fixture
async def channel(grpc_gateway):
    async with grpc.aio.insecure_channel(grpc_gateway.target) as channel:
        yield channel


@pytest.fixture
def stub(channel):
    return ExpressionServiceStub(channel)


def frame(frame_id, image, **fields):
    return service_pb.StreamAnalyzeRequest(id=frame_id, image=image, **fields)


def reason_of(status):
    info = ErrorInfo()
    assert status.details[0].Unpack(info)
    assert info.domain == "ferserve"
    return info.reason


async def failure_of(call):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def refusal_of(call):
    failure = await failure_of(call)
    return failure.code(), reason_of(rpc_status.from_call(failure))


async def all_started(analyzer, count):
    return [await analyzer.started.get() for _ in range(count)]


async def test_analyze_answers_with_the_analysis(stub, sample_analysis):
    response = await stub.Analyze(service_pb.AnalyzeRequest(image=b"picture"))
    assert response.analysis == analysis_to_pb(sample_analysis)


async def test_analyze_passes_picture_and_options_on(stub, grpc_gateway):
    options = service_pb.AnalyzeOptions(model="m", priority=pb.PRIORITY_BULK, detection_size=640, max_faces=3)
    await stub.Analyze(service_pb.AnalyzeRequest(image=b"picture", options=options))
    [(data, asked, _)] = grpc_gateway.analyzer.asked
    assert data == b"picture"
    assert asked == AnalyzeOptions(model="m", priority=Priority.BULK, detection_size_px=640, max_faces=3)


@pytest.mark.parametrize(
    "options",
    [{"detection_size": 0}, {"detection_size": 4097}, {"max_faces": 0}, {"priority": 9}],
    ids=lambda options: next(iter(options)),
)
async def test_options_out_of_range_are_refused(stub, grpc_gateway, options):
    request = service_pb.AnalyzeRequest(image=b"picture", options=service_pb.AnalyzeOptions(**options))
    failure = await failure_of(stub.Analyze(request))
    assert failure.code() is grpc.StatusCode.INVALID_ARGUMENT
    [(field, value)] = options.items()
    assert failure.details().startswith(f"{field}: expected")
    assert failure.details().endswith(f"got {value}")
    assert grpc_gateway.analyzer.asked == []


async def test_a_deadline_becomes_a_reading_of_the_loops_clock(stub, grpc_gateway):
    before_s = asyncio.get_running_loop().time()
    await stub.Analyze(service_pb.AnalyzeRequest(image=b"picture"), timeout=30)
    after_s = asyncio.get_running_loop().time()
    [(_, _, context)] = grpc_gateway.analyzer.asked
    # gRPC counts deadlines on another clock, in milliseconds.
    assert before_s + 29 < context.deadline_s < after_s + 30.1


async def test_no_deadline_is_none(stub, grpc_gateway):
    await stub.Analyze(service_pb.AnalyzeRequest(image=b"picture"))
    [(_, _, context)] = grpc_gateway.analyzer.asked
    assert context.deadline_s is None


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason is not Reason.INTERNAL])
async def test_every_reason_has_its_code(stub, grpc_gateway, reason):
    grpc_gateway.analyzer.errors[b"bad"] = type("AnyError", (FerserveError,), {"reason": reason})("expected x, got y")
    failure = await failure_of(stub.Analyze(service_pb.AnalyzeRequest(image=b"bad")))
    assert failure.code() is STATUS[reason].grpc_code
    assert failure.details() == "expected x, got y"
    assert reason_of(rpc_status.from_call(failure)) == reason


async def test_overload_says_when_to_come_back(stub, grpc_gateway):
    grpc_gateway.analyzer.errors[b"bad"] = OverloadedError("queue: full", retry_after_s=1.5)
    status = rpc_status.from_call(await failure_of(stub.Analyze(service_pb.AnalyzeRequest(image=b"bad"))))
    retry = RetryInfo()
    assert status.details[1].Unpack(retry)
    assert retry.retry_delay.ToMilliseconds() == 1500


async def test_an_unforeseen_error_tells_the_caller_nothing_and_the_log_everything(stub, grpc_gateway, caplog):
    grpc_gateway.analyzer.errors[b"bad"] = RuntimeError("/srv/secret")
    call = stub.Analyze(service_pb.AnalyzeRequest(image=b"bad"), metadata=(("x-request-id", "r-1"),))
    with caplog.at_level(logging.ERROR, logger="ferserve.serving.grpc_api"):
        failure = await failure_of(call)
    assert (failure.code(), failure.details()) == (grpc.StatusCode.INTERNAL, "internal error")
    assert "secret" not in str(rpc_status.from_call(failure))
    [record] = caplog.records
    assert record.request_id == "r-1"
    assert "secret" in str(record.exc_info[1])


async def test_a_message_that_quotes_a_huge_field_still_arrives(stub):
    code, reason = await refusal_of(stub.GetModel(service_pb.GetModelRequest(name="\N{GRINNING FACE}" * 100_000)))
    assert (code, reason) == (grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND")


async def test_the_callers_request_id_comes_back(stub, grpc_gateway):
    call = stub.Analyze(service_pb.AnalyzeRequest(image=b"picture"), metadata=(("x-request-id", "r-1"),))
    await call
    assert dict(await call.trailing_metadata())["x-request-id"] == "r-1"
    assert grpc_gateway.analyzer.asked[0][2].request_id == "r-1"


async def test_the_request_id_comes_back_with_an_error_too(stub):
    failure = await failure_of(
        stub.GetModel(service_pb.GetModelRequest(name="none"), metadata=(("x-request-id", "r-1"),))
    )
    assert dict(failure.trailing_metadata())["x-request-id"] == "r-1"


@pytest.mark.parametrize("came", ["", "a b", "x" * 129])
async def test_an_unusable_request_id_is_replaced(stub, grpc_gateway, came):
    call = stub.Analyze(service_pb.AnalyzeRequest(image=b"picture"), metadata=(("x-request-id", came),))
    await call
    request_id = dict(await call.trailing_metadata())["x-request-id"]
    assert len(request_id) == 32
    assert grpc_gateway.analyzer.asked[0][2].request_id == request_id


async def test_a_bad_picture_does_not_fail_its_neighbours(stub, grpc_gateway, sample_analysis):
    grpc_gateway.analyzer.errors[b"bad"] = InvalidImageError("image: expected a whole picture, got 3 bytes")
    response = await stub.BatchAnalyze(service_pb.BatchAnalyzeRequest(images=[b"one", b"bad", b"two"]))
    good, bad, also_good = response.items
    assert good.analysis == also_good.analysis == analysis_to_pb(sample_analysis)
    assert reason_of(bad.error) == "INVALID_IMAGE"
    assert bad.error.message == "image: expected a whole picture, got 3 bytes"


async def test_an_item_nobody_foresaw_is_logged_and_says_nothing(stub, grpc_gateway, caplog):
    grpc_gateway.analyzer.errors[b"bad"] = FerserveError("/srv/secret")
    with caplog.at_level(logging.ERROR, logger="ferserve.serving.grpc_api"):
        response = await stub.BatchAnalyze(service_pb.BatchAnalyzeRequest(images=[b"bad"]))
    assert response.items[0].error.message == "internal error"
    assert len(caplog.records) == 1


async def test_classify_gives_one_item_a_face(stub, grpc_gateway, sample_model):
    grpc_gateway.analyzer.errors[b"bad"] = InvalidImageError("not a picture")
    response = await stub.ClassifyFaces(service_pb.ClassifyFacesRequest(faces=[b"face", b"bad"]))
    assert response.items[0].classification.expression == pb.EXPRESSION_HAPPY
    assert response.items[0].classification.uncertain
    assert reason_of(response.items[1].error) == "INVALID_IMAGE"
    assert response.model.name == sample_model.name


async def test_every_call_is_reported_by_its_name_and_reason(stub, grpc_gateway):
    grpc_gateway.analyzer.errors[b"bad"] = InvalidImageError("not a picture")
    done = grpc_gateway.observer.done
    await stub.Analyze(service_pb.AnalyzeRequest(image=b"one"))
    assert await done.get() == ("Analyze", None)
    await failure_of(stub.Analyze(service_pb.AnalyzeRequest(image=b"bad")))
    assert await done.get() == ("Analyze", Reason.INVALID_IMAGE)
    await failure_of(stub.GetModel(service_pb.GetModelRequest(name="absent")))
    assert await done.get() == ("GetModel", Reason.MODEL_NOT_FOUND)
    leaving = stub.ClassifyFaces(service_pb.ClassifyFacesRequest(faces=[b"hold"]))
    while await grpc_gateway.analyzer.started.get() != b"hold":
        pass
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert await done.get() == ("ClassifyFaces", Reason.CANCELLED)
    assert [reply async for reply in stub.StreamAnalyze(iter([]))] == []
    assert await done.get() == ("StreamAnalyze", None)


async def test_models_are_listed_and_described(stub, sample_model):
    listed = await stub.ListModels(service_pb.ListModelsRequest())
    described = await stub.GetModel(service_pb.GetModelRequest(name=sample_model.name))
    assert list(listed.models) == [described.model] == [model_to_pb(sample_model)]
    assert described.model.ref.precision == "int8"


async def test_a_stream_answers_each_frame_once_and_outlives_a_bad_one(stub, grpc_gateway):
    grpc_gateway.analyzer.errors[b"bad"] = InvalidImageError("not a picture")
    grpc_gateway.analyzer.errors[b"boom"] = RuntimeError("unforeseen")
    frames = [frame(7, b"one"), frame(8, b"bad"), frame(7, b"the same id"), frame(9, b"boom"), frame(2**64 - 1, b"two")]
    replies = [reply async for reply in stub.StreamAnalyze(iter(frames))]
    outcomes = sorted((reply.id, reply.WhichOneof("outcome")) for reply in replies)
    assert outcomes == [(7, "analysis"), (7, "analysis"), (8, "error"), (9, "error"), (2**64 - 1, "analysis")]
    assert {reply.id: reason_of(reply.error) for reply in replies if reply.HasField("error")} == {
        8: "INVALID_IMAGE",
        9: "INTERNAL",
    }


async def test_a_slow_frame_does_not_hold_up_the_next(stub, grpc_gateway):
    call = stub.StreamAnalyze()
    await call.write(frame(1, b"hold"))
    await call.write(frame(2, b"picture"))
    assert (await call.read()).id == 2
    grpc_gateway.analyzer.release.set()
    assert (await call.read()).id == 1
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF


async def test_a_stream_reads_no_more_frames_than_it_may_have_unanswered(start_grpc):
    gateway = await start_grpc(max_stream_frames_in_flight=2)
    async with grpc.aio.insecure_channel(gateway.target) as channel:
        stub = ExpressionServiceStub(channel)
        call = stub.StreamAnalyze()
        for frame_id in range(5):
            await call.write(frame(frame_id, b"hold"))
        await call.done_writing()
        await all_started(gateway.analyzer, 2)
        # A round trip on the same connection: by its end the server has had every chance to read the third frame.
        await stub.ListModels(service_pb.ListModelsRequest())
        assert gateway.health.in_flight == 2
        assert gateway.analyzer.started.empty()
        gateway.analyzer.release.set()
        assert sorted([reply.id async for reply in call]) == [0, 1, 2, 3, 4]


async def test_a_live_stream_answers_in_order_with_the_newest_and_says_what_it_dropped(stub, grpc_gateway):
    live = service_pb.StreamOptions(mode=service_pb.STREAM_MODE_LIVE, tracks=True)
    call = stub.StreamAnalyze()
    await call.write(frame(1, b"hold", stream=live))
    await all_started(grpc_gateway.analyzer, 1)
    for frame_id in range(2, 6):
        await call.write(frame(frame_id, b"picture"))
    assert [await grpc_gateway.observer.dropped.get() for _ in range(3)] == [1] * 3
    grpc_gateway.analyzer.release.set()
    await call.done_writing()
    replies = [reply async for reply in call]
    assert [(reply.id, reply.dropped_frames) for reply in replies] == [(1, 0), (5, 3)]
    assert [reply.analysis.faces[0].track_id for reply in replies] == [1, 1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": 9}, "mode: expected one of STREAM_MODE_UNSPECIFIED, STREAM_MODE_RECORDED, STREAM_MODE_LIVE, got 9"),
        ({"smoothing": 1}, "smoothing: expected 0 to 0.95, got 1"),
    ],
)
async def test_stream_options_out_of_range_end_the_stream(stub, options, message):
    call = stub.StreamAnalyze(iter([frame(1, b"one", stream=service_pb.StreamOptions(**options))]))
    failure = await failure_of(call.read())
    assert (failure.code(), failure.details()) == (grpc.StatusCode.INVALID_ARGUMENT, message)


async def test_faces_have_no_track_unless_asked(stub):
    [reply] = [reply async for reply in stub.StreamAnalyze(iter([frame(1, b"one")]))]
    assert not reply.analysis.faces[0].HasField("track_id")


async def test_frames_share_the_streams_id_and_keep_the_earlier_deadline(stub, grpc_gateway):
    frames = [frame(1, b"one"), frame(2, b"two", timeout_ms=1000), frame(3, b"three", timeout_ms=3_600_000)]
    call = stub.StreamAnalyze(iter(frames), timeout=60, metadata=(("x-request-id", "s-1"),))
    assert len([reply async for reply in call]) == 3
    contexts = {data: context for data, _, context in grpc_gateway.analyzer.asked}
    assert {context.request_id for context in contexts.values()} == {"s-1"}
    assert contexts[b"two"].deadline_s < contexts[b"one"].deadline_s - 50
    assert contexts[b"three"].deadline_s == contexts[b"one"].deadline_s


async def test_a_frame_may_have_a_deadline_where_the_stream_has_none(stub, grpc_gateway):
    frames = [frame(1, b"one"), frame(2, b"two", timeout_ms=1000)]
    assert len([reply async for reply in stub.StreamAnalyze(iter(frames))]) == 2
    contexts = {data: context for data, _, context in grpc_gateway.analyzer.asked}
    assert contexts[b"one"].deadline_s is None
    assert contexts[b"two"].deadline_s is not None


async def test_a_frame_timeout_of_zero_is_refused(stub):
    [reply] = [reply async for reply in stub.StreamAnalyze(iter([frame(1, b"one", timeout_ms=0)]))]
    assert reason_of(reply.error) == "INVALID_REQUEST"
    assert reply.error.message == "timeout_ms: expected 1 or more milliseconds, got 0"


async def test_a_caller_who_leaves_cancels_the_analysis(stub, grpc_gateway):
    call = stub.Analyze(service_pb.AnalyzeRequest(image=b"hold"))
    await all_started(grpc_gateway.analyzer, 1)
    call.cancel()
    assert await grpc_gateway.analyzer.left.get() == b"hold"
    assert await grpc_gateway.health.drained(5)


async def test_a_caller_who_leaves_a_stream_cancels_its_frames(stub, grpc_gateway, caplog):
    call = stub.StreamAnalyze()
    await call.write(frame(1, b"hold one"))
    await call.write(frame(2, b"hold two"))
    await all_started(grpc_gateway.analyzer, 2)
    call.cancel()
    assert {await grpc_gateway.analyzer.left.get() for _ in range(2)} == {b"hold one", b"hold two"}
    assert await grpc_gateway.health.drained(5)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_a_reply_that_nobody_takes_any_more_is_no_error(grpc_gateway):
    class LeftContext:
        """The context of a caller who left a moment ago: gRPC has not cancelled the call yet."""

        def invocation_metadata(self):
            return ()

        def time_remaining(self):
            return None

        def set_trailing_metadata(self, metadata): ...

        async def write(self, message):
            raise grpc.aio.InternalError(f"nobody there for {message.id}")

    async def incoming():
        for frame_id in range(3):
            yield frame(frame_id, b"picture")

    servicer = ExpressionServicer(
        grpc_gateway.analyzer,
        grpc_gateway.health,
        GrpcCalls(
            grpc_gateway.health,
            arrivals=Arrivals(most=1, timeout_s=1),
            bodies=BodyBudget(2**20),
            check_room=grpc_gateway.analyzer.check_room,
            observer=grpc_gateway.observer,
            gate=OPEN,
        ),
        places=dict.fromkeys(StreamMode, 1),
        bodies=BodyBudget(2**20),
        observer=grpc_gateway.observer,
    )
    await servicer.StreamAnalyze(incoming(), LeftContext())
    assert len(grpc_gateway.analyzer.asked) == 3


async def test_a_deadline_that_passes_cancels_the_analysis(stub, grpc_gateway):
    call = stub.Analyze(service_pb.AnalyzeRequest(image=b"hold"), timeout=0.1)
    assert (await failure_of(call)).code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert await grpc_gateway.analyzer.left.get() == b"hold"


async def test_draining_refuses_what_is_new_and_finishes_what_was_accepted(stub, grpc_gateway):
    accepted = stub.Analyze(service_pb.AnalyzeRequest(image=b"hold"))
    stream = stub.StreamAnalyze()
    await stream.write(frame(1, b"hold"))
    await all_started(grpc_gateway.analyzer, 2)
    grpc_gateway.health.drain()

    new_call = stub.Analyze(service_pb.AnalyzeRequest(image=b"picture"))
    new_stream = stub.StreamAnalyze(iter([frame(1, b"picture")]))
    assert await refusal_of(new_call) == (grpc.StatusCode.UNAVAILABLE, "NOT_READY")
    assert await refusal_of(new_stream.read()) == (grpc.StatusCode.UNAVAILABLE, "NOT_READY")
    await stream.write(frame(2, b"picture"))
    reply = await stream.read()
    assert (reply.id, reason_of(reply.error)) == (2, "NOT_READY")

    grpc_gateway.analyzer.release.set()
    assert (await accepted).HasField("analysis")
    assert (await stream.read()).HasField("analysis")
    await stream.done_writing()
    assert await stream.read() is grpc.aio.EOF
    assert await grpc_gateway.health.drained(5)


@pytest.mark.parametrize("service", ["", SERVICE_NAME])
async def test_grpc_health_follows_the_gateways(start_grpc, service):
    serving, not_serving = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
    gateway = await start_grpc(ready=False)
    async with grpc.aio.insecure_channel(gateway.target) as channel:
        check = health_pb2_grpc.HealthStub(channel).Check
        request = health_pb2.HealthCheckRequest(service=service)
        assert (await check(request)).status == not_serving
        gateway.health.ready()
        assert (await check(request)).status == serving
        gateway.health.drain()
        assert (await check(request)).status == not_serving


async def test_reflection_names_the_service(channel):
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    [response] = [response async for response in stub.ServerReflectionInfo(iter([request]))]
    names = {service.name for service in response.list_services_response.service}
    assert {SERVICE_NAME, "grpc.health.v1.Health"} <= names


async def test_the_largest_picture_fits_and_a_message_above_the_limit_is_refused_by_grpc(start_grpc):
    max_image_bytes = 5 * 1024 * 1024  # above gRPC's own default limit of 4 MiB
    gateway = await start_grpc(
        max_image_bytes=max_image_bytes, max_message_bytes=max_image_bytes + MESSAGE_HEADROOM_BYTES
    )
    async with grpc.aio.insecure_channel(gateway.target) as channel:
        stub = ExpressionServiceStub(channel)
        await stub.Analyze(service_pb.AnalyzeRequest(image=bytes(max_image_bytes)))
        too_large = service_pb.AnalyzeRequest(image=bytes(max_image_bytes + MESSAGE_HEADROOM_BYTES + 1))
        failure = await failure_of(stub.Analyze(too_large))
    assert failure.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert rpc_status.from_call(failure) is None


async def test_a_message_limit_below_the_largest_picture_is_refused(grpc_gateway):
    config = GrpcConfig(port=0, max_message_bytes=1024 * 1024)
    with pytest.raises(ValueError, match=r"^max_message_bytes must be 1114112 or more .* got 1048576"):
        build_grpc_server(
            grpc_gateway.analyzer,
            Health(),
            config,
            max_image_bytes=1024 * 1024,
            live_frames=1,
            bodies=BodyBudget(1),
            observer=grpc_gateway.observer,
            version="1.2.3",
        )


async def test_a_taken_port_is_an_error(grpc_gateway):
    config = GrpcConfig(port=int(grpc_gateway.target.rpartition(":")[2]))
    with pytest.raises(RuntimeError, match="bind"):
        build_grpc_server(
            grpc_gateway.analyzer,
            Health(),
            config,
            max_image_bytes=1024,
            live_frames=1,
            bodies=BodyBudget(1),
            observer=grpc_gateway.observer,
            version="1.2.3",
        )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("port", -1),
        ("port", 65536),
        ("max_message_bytes", 0),
        ("max_stream_frames_in_flight", 0),
        ("keepalive_time_s", 0.0),
        ("keepalive_timeout_s", -1.0),
        ("min_client_ping_interval_s", float("nan")),
    ],
)
def test_a_setting_out_of_range_is_named(field, value):
    with pytest.raises(ValueError, match=f"^{field} must be .* got {value}$"):
        GrpcConfig(**{field: value})


def test_the_server_listens_on_loopback_unless_told_otherwise():
    assert (GrpcConfig().host, GrpcConfig().port) == ("127.0.0.1", 50051)
