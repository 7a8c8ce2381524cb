"""`GatewayScorer` against a real gRPC server with a hand-written analyzer behind it."""

import asyncio
from dataclasses import replace

import pytest

from ferserve.faces.errors import FerserveError, ImageTooLargeError, InvalidImageError
from ferserve.serving.bulk.feed import Content
from ferserve.serving.bulk.gateway import FIRST_PAUSE_S, TRIES, GatewayScorer, gateway_scoring
from ferserve.serving.client import AsyncClient
from ferserve.serving.errors import ConfigError, DeadlineError, NotReadyError, OverloadedError
from ferserve.serving.requests import AnalyzeOptions, ImageAnalysis, Priority

OPTIONS = AnalyzeOptions(priority=Priority.BULK, max_faces=3)


class Waits:
    """Time that passes only where somebody waits."""

    def __init__(self):
        self.now_s = 0.0
        self.waited_s = []

    def clock(self):
        return self.now_s

    async def sleep(self, duration_s):
        self.waited_s.append(duration_s)
        self.now_s += duration_s
        await asyncio.sleep(0)


@pytest.fixture
def waits():
    return Waits()


@pytest.fixture
async def scorer(grpc_gateway, sample_analysis, waits):
    async with AsyncClient(grpc_gateway.target) as client:
        made = GatewayScorer(client, OPTIONS, sample_analysis, patience_s=100, clock=waits.clock, sleep=waits.sleep)
        running = asyncio.create_task(made.run())
        yield made
        running.cancel()


def once(analyzer, picture, *errors):
    """Let the analyzer fail so often on one picture, and then answer it."""
    left = list(errors)
    real = analyzer.analyze

    async def analyze(data, options, context):
        if data == picture and left:
            raise left.pop(0)
        return await real(data, options, context)

    analyzer.analyze = analyze


async def test_pictures_go_over_one_stream_in_bulk_priority(scorer, grpc_gateway):
    outcomes = await asyncio.gather(*(scorer.score(b"%d" % number) for number in range(50)))
    assert all(isinstance(outcome, ImageAnalysis) for outcome in outcomes)
    assert {options for _, options, _ in grpc_gateway.analyzer.asked} == {OPTIONS}
    assert len({context.request_id for _, _, context in grpc_gateway.analyzer.asked}) == 1


async def test_an_error_of_a_picture_is_its_outcome(scorer, grpc_gateway):
    grpc_gateway.analyzer.errors[b"bad"] = InvalidImageError("expected a picture")
    bad, good = await asyncio.gather(scorer.score(b"bad"), scorer.score(b"good"))
    assert isinstance(bad, InvalidImageError)
    assert isinstance(good, ImageAnalysis)


async def test_who_is_told_when_to_come_back_comes_back_then_however_often(scorer, grpc_gateway, waits):
    refusals = [OverloadedError("full", retry_after_s=7.0) for _ in range(40)]
    once(grpc_gateway.analyzer, b"x", *refusals)
    assert isinstance(await scorer.score(b"x"), ImageAnalysis)
    assert waits.waited_s == [7.0] * 40


async def test_a_picture_that_runs_out_of_time_is_tried_a_few_times(scorer, grpc_gateway):
    once(grpc_gateway.analyzer, b"slow", *[DeadlineError("too late")] * (TRIES - 1))
    assert isinstance(await scorer.score(b"slow"), ImageAnalysis)
    once(grpc_gateway.analyzer, b"slower", *[DeadlineError("too late")] * TRIES)
    assert isinstance(await scorer.score(b"slower"), DeadlineError)


async def test_a_gateway_that_answers_nothing_ends_the_run_after_a_while(scorer, grpc_gateway, waits):
    grpc_gateway.analyzer.errors[b"x"] = NotReadyError("draining")
    with pytest.raises(NotReadyError, match="answered nothing for 100 s: draining"):
        await scorer.score(b"x")
    assert 100 < waits.now_s < 130
    assert waits.waited_s[0] == FIRST_PAUSE_S
    with pytest.raises(NotReadyError):
        await scorer.score(b"y")


class BreakingClient(AsyncClient):
    """Its first stream takes three frames and breaks, as a connection does."""

    streams = 0

    async def stream(self, frames, options, **how):
        self.streams += 1
        if self.streams == 1:
            for _ in range(3):
                await anext(frames)
            raise NotReadyError("no answer: the connection broke")
        async for reply in super().stream(frames, options, **how):
            yield reply


async def test_a_stream_that_breaks_is_opened_again_and_what_had_no_answer_is_sent_again(
    grpc_gateway, sample_analysis, waits
):
    pictures = [b"%d" % number for number in range(5)]
    async with BreakingClient(grpc_gateway.target) as client:
        scorer = GatewayScorer(client, OPTIONS, sample_analysis, clock=waits.clock, sleep=waits.sleep)
        running = asyncio.create_task(scorer.run())
        outcomes = await asyncio.gather(*(scorer.score(picture) for picture in pictures))
        running.cancel()
    assert all(isinstance(outcome, ImageAnalysis) for outcome in outcomes)
    assert sorted(data for data, _, _ in grpc_gateway.analyzer.asked) == pictures
    assert waits.waited_s == [2 * FIRST_PAUSE_S]


async def test_a_picture_above_the_servers_message_limit_costs_the_others_nothing(start_grpc, sample_analysis, waits):
    gateway = await start_grpc(max_image_bytes=1024, max_message_bytes=1024 + 2**16)
    async with AsyncClient(gateway.target) as client:
        scorer = GatewayScorer(client, OPTIONS, sample_analysis, clock=waits.clock, sleep=waits.sleep)
        running = asyncio.create_task(scorer.run())
        large, small = await asyncio.gather(scorer.score(bytes(2**18)), scorer.score(b"small"))
        running.cancel()
    assert isinstance(large, ImageTooLargeError)
    assert isinstance(small, ImageAnalysis)


async def test_another_model_behind_the_same_address_ends_the_run(grpc_gateway, sample_analysis, waits):
    other = replace(sample_analysis, model=replace(sample_analysis.model, archive_sha256="c" * 64))
    async with AsyncClient(grpc_gateway.target) as client:
        scorer = GatewayScorer(client, OPTIONS, other, clock=waits.clock, sleep=waits.sleep)
        running = asyncio.create_task(scorer.run())
        with pytest.raises(ConfigError, match=r"another model or detector now.*cccccccccccc.*got .*aaaaaaaaaaaa"):
            await scorer.score(b"x")
        running.cancel()


async def test_a_model_that_is_not_there_ends_the_run_before_it_begins(grpc_gateway):
    async def unknown(*_arguments):
        raise InvalidImageError("expected another picture")

    grpc_gateway.analyzer.analyze = unknown
    with pytest.raises(FerserveError, match="expected another picture"):
        async with gateway_scoring(grpc_gateway.target, OPTIONS):
            pass


async def test_settings_come_from_the_gateways_first_answer(grpc_gateway, sample_analysis):
    async with gateway_scoring(grpc_gateway.target, OPTIONS) as scoring:
        assert scoring.settings["archive_sha256"] == sample_analysis.model.archive_sha256
        assert (scoring.settings["detector"], scoring.settings["precision"]) == ("haar", "int8")
        (row,) = await scoring.scorer.rows(Content(data=b"x", sha256=b"\xab" * 32))
        assert (row["status"], row["content_sha256"]) == ("ok", "ab" * 32)
