"""The load generator against a real gRPC server."""

import asyncio

import pytest

from ferserve.serving.benchmarks.exchanges import Ending
from ferserve.serving.benchmarks.generator import Generator, Stream, Work
from ferserve.serving.errors import NotReadyError, OverloadedError
from ferserve.v1 import expression_service_pb2 as service_pb


def work_of(image: bytes, *, name: str = "photo", timeout_s: float = 30.0) -> Work:
    body = service_pb.AnalyzeRequest(image=image).SerializeToString()
    return Work(name=name, method="Analyze", body=body, timeout_s=timeout_s)


@pytest.fixture
async def generator(grpc_gateway):
    async with Generator(grpc_gateway.target) as generator:
        await generator.connect()
        yield generator


async def test_open_loop_sends_on_although_nothing_is_answered(grpc_gateway, generator):
    stream = Stream(work=work_of(b"hold"), rate_per_s=200.0, seed=1)
    offering = asyncio.create_task(generator.offer([stream], 0.2))
    while len(grpc_gateway.analyzer.asked) < 20:
        await grpc_gateway.analyzer.started.get()
    assert not offering.done()
    grpc_gateway.analyzer.release.set()
    exchanges = await offering
    assert len(exchanges) > 20
    assert {exchange.ending for exchange in exchanges} == {Ending.OK}
    assert [exchange.due_s for exchange in exchanges] == sorted(exchange.due_s for exchange in exchanges)
    assert all(exchange.due_s <= exchange.sent_s <= exchange.done_s for exchange in exchanges)


async def test_streams_are_told_apart(generator):
    streams = [Stream(work=work_of(b"x", name=name), rate_per_s=100.0, seed=seed) for seed, name in enumerate("ab")]
    names = [exchange.stream for exchange in await generator.offer(streams, 0.2)]
    assert set(names) == {"a", "b"}


async def test_refusals_are_kept_with_the_time_to_come_back_and_not_retried(grpc_gateway, generator):
    errors = {b"full": OverloadedError("", retry_after_s=0.75), b"bad": ValueError(), b"gone": NotReadyError("")}
    grpc_gateway.analyzer.errors.update(errors)
    seen = []
    for image in errors:
        exchanges = await generator.offer([Stream(work=work_of(image), rate_per_s=100.0, seed=0)], 0.1)
        seen.append({(exchange.ending, exchange.retry_after_s) for exchange in exchanges})
        assert sum(data == image for data, _, _ in grpc_gateway.analyzer.asked) == len(exchanges) > 0
    assert seen == [{(Ending.REFUSED, 0.75)}, {(Ending.FAILED, None)}, {(Ending.UNAVAILABLE, None)}]


async def test_a_deadline_goes_with_every_request(grpc_gateway, generator):
    stream = Stream(work=work_of(b"hold", timeout_s=0.05), rate_per_s=50.0, seed=1)
    exchanges = await generator.offer([stream], 0.1)
    assert {exchange.ending for exchange in exchanges} == {Ending.EXPIRED}
    assert all(context.deadline_s is not None for _, _, context in grpc_gateway.analyzer.asked)


async def test_closed_loop_keeps_so_many_busy_and_no_more(grpc_gateway, generator):
    busy = asyncio.create_task(generator.keep_busy(work_of(b"hold"), 3, 0.05))
    for _ in range(3):
        await grpc_gateway.analyzer.started.get()
    assert len(grpc_gateway.analyzer.asked) == 3
    grpc_gateway.analyzer.release.set()
    assert len(await busy) >= 3
