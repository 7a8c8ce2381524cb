"""The load generator against a real gRPC server."""

import asyncio
from dataclasses import replace
from itertools import repeat

import pytest

from ferserve.serving.admin import AdminConfig
from ferserve.serving.analyzer_config import AnalyzerConfig
from ferserve.serving.app import Gateway
from ferserve.serving.benchmarks.exchanges import Answer, Ending
from ferserve.serving.benchmarks.gateways import Subject
from ferserve.serving.benchmarks.generator import Generator, Stream
from ferserve.serving.benchmarks.load import with_faces
from ferserve.serving.benchmarks.payloads import photo_work, shrunk
from ferserve.serving.benchmarks.protocols import ProtocolName
from ferserve.serving.benchmarks.transports import GrpcTransport, Work, transport
from ferserve.serving.config import ServeConfig
from ferserve.serving.engine import ModelsConfig, open_archives, running_engine
from ferserve.serving.errors import NotReadyError, OverloadedError
from ferserve.serving.grpc_api import GrpcConfig
from ferserve.serving.metrics import Metrics
from ferserve.serving.requests import AnalyzeOptions
from ferserve.serving.rest_api import HttpConfig
from ferserve.serving.workers.embedded import EmbeddedConfig
from ferserve.v1 import expression_service_pb2 as service_pb


def work_of(image: bytes, *, name: str = "photo", timeout_s: float = 30.0) -> Work:
    body = service_pb.AnalyzeRequest(image=image).SerializeToString()
    return Work(name=name, method="Analyze", body=body, timeout_s=timeout_s)


@pytest.fixture
async def generator(grpc_gateway):
    async with Generator(GrpcTransport(grpc_gateway.target)) as generator:
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
    busy = asyncio.create_task(generator.keep_busy(repeat(work_of(b"hold")), 3, 0.05))
    for _ in range(3):
        await grpc_gateway.analyzer.started.get()
    assert len(grpc_gateway.analyzer.asked) == 3
    grpc_gateway.analyzer.release.set()
    assert len(await busy) >= 3


@pytest.fixture(params=ProtocolName)
async def served(request, tiny_archive):
    """The real gateway, and one way to it."""
    config = ServeConfig(
        models=ModelsConfig(archives=(str(tiny_archive),)),
        grpc=GrpcConfig(port=0),
        http=HttpConfig(port=0),
        admin=AdminConfig(port=0),
        analyzer=AnalyzerConfig(threads=1),
        embedded=EmbeddedConfig(threads=1),
    )
    metrics = Metrics()
    async with running_engine(config, open_archives(config.models), metrics) as engine:
        gateway = Gateway(config, engine, metrics)
        await gateway.start()
        subject = Subject(
            target=gateway.addresses["gRPC"],
            rest=gateway.addresses["REST"].removeprefix("http://"),
            admin=gateway.addresses["admin"],
        )
        yield gateway, subject, request.param
        await gateway.stop(0)


async def test_every_way_reaches_the_real_gateway_and_hears_its_answers(served, face_photo):
    gateway, subject, protocol = served
    (good,) = await with_faces([photo_work("face", shrunk(face_photo, 256), AnalyzeOptions(), 30.0)], subject.target)
    assert good.faces == 1
    way = transport(protocol, target=subject.target, rest=subject.rest)
    await way.connect()
    assert await asyncio.gather(way.ask(good), way.ask(good)) == [Answer(ending=Ending.OK)] * 2
    assert await way.ask(good) == Answer(ending=Ending.OK), "connections are used again"
    assert (await way.ask(work_of(b"no picture"))).ending is Ending.FAILED
    assert (await way.ask(replace(good, timeout_s=0.001))).ending is Ending.EXPIRED
    gateway._health.drain()
    refused = await way.ask(good)
    assert (refused.ending, refused.retry_after_s) == (Ending.UNAVAILABLE, 1.0)
    await way.close()


async def test_a_gateway_that_is_gone_is_unavailable(served, face_photo):
    gateway, subject, protocol = served
    work = photo_work("face", shrunk(face_photo, 64), AnalyzeOptions(), 5.0)
    way = transport(protocol, target=subject.target, rest=subject.rest)
    await way.connect()
    await way.ask(work)
    await gateway.stop(0)
    assert (await way.ask(work)).ending is Ending.UNAVAILABLE
    await way.close()


async def test_only_whole_pictures_go_another_way_than_a_call_each():
    crops = Work(name="crops", method="ClassifyFaces", body=b"", timeout_s=1.0)
    with pytest.raises(ValueError, match="method must be Analyze"):
        await transport(ProtocolName.REST, target="127.0.0.1:1", rest="127.0.0.1:1").ask(crops)
