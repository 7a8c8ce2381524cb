"""Workers that answer wrongly, behind the whole gateway: callers get right scores or a clear code."""

import asyncio
import contextlib

import cv2
import httpx
import numpy as np
import pytest
from tests.made_up.torchserve_service import torchserve_service

from ferserve.faces.archive import read_archive
from ferserve.faces.errors import FerserveError, Reason
from ferserve.faces.session import ScoringSession
from ferserve.serving.admin import AdminConfig
from ferserve.serving.app import Gateway
from ferserve.serving.client import AsyncClient, ClientConfig
from ferserve.serving.config import ServeConfig
from ferserve.serving.engine import ModelsConfig, open_archives, running_engine
from ferserve.serving.grpc_api import GrpcConfig
from ferserve.serving.metrics import Metrics
from ferserve.serving.rest_api import HttpConfig
from ferserve.serving.workers.config import WorkersConfig

SIDE_PX, RECOVERS_WITHIN_S = 24, 30.0
CALLS = 12


def not_a_number(rows):
    rows = rows.copy()
    rows[-1, 3] = np.nan
    return rows


def infinite(rows):
    return rows + np.float32(np.inf)


def one_row_too_few(rows):
    return rows[:-1]


def six_columns(rows):
    return rows[:, :6].copy()


WRONG = [not_a_number, infinite, one_row_too_few, six_columns]


@pytest.fixture(scope="module")
def archive(pack_archive):
    return read_archive(pack_archive("tiny", program=b"its hash alone matters here"))


@contextlib.asynccontextmanager
async def gateway_over(archive, *endpoints):
    config = ServeConfig(
        models=ModelsConfig(archives=(str(archive.path),)),
        grpc=GrpcConfig(port=0),
        http=HttpConfig(port=0),
        admin=AdminConfig(port=0),
        workers=WorkersConfig(kind="torchserve", endpoints=endpoints, call_timeout_s=20.0, retry_s=0.2),
    )
    metrics = Metrics()
    async with running_engine(config, open_archives(config.models), metrics) as engine:
        gateway = Gateway(config, engine, metrics)
        await gateway.start()
        try:
            yield gateway.addresses
        finally:
            await gateway.stop(0)


async def circuits(addresses):
    async with httpx.AsyncClient(base_url=addresses["admin"]) as admin:
        (model,) = (await admin.get("/status")).json()["models"]
    return {worker["name"]: worker["circuit"] for worker in model["workers"]}


async def all_work(addresses):
    for _ in range(round(RECOVERS_WITHIN_S / 0.05)):
        if set((await circuits(addresses)).values()) == {"closed"}:
            return
        await asyncio.sleep(0.05)
    pytest.fail(f"no worker was taken in again within {RECOVERS_WITHIN_S} s")


@pytest.fixture
def faces():
    """Two crops as PNG, and as the model sees them."""
    crops = np.random.default_rng(0).integers(0, 256, (2, SIDE_PX, SIDE_PX, 1), dtype=np.uint8)
    return [cv2.imencode(".png", crop)[1].tobytes() for crop in crops], crops


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.__name__)
async def test_of_two_workers_one_answers_wrongly_and_no_caller_notices(archive, faces, wrong):
    pictures, crops = faces
    expected = ScoringSession.from_archive(archive).score(crops)
    async with (
        torchserve_service(archive) as (good, good_endpoint),
        torchserve_service(archive) as (bad, bad_endpoint),
        gateway_over(archive, good_endpoint, bad_endpoint) as addresses,
        AsyncClient(addresses["gRPC"]) as client,
    ):
        await all_work(addresses)
        bad.spoil = wrong
        asked = bad.crops_calls
        for _ in range(CALLS):
            items = (await client.classify(pictures)).items
            np.testing.assert_allclose([item.scores for item in items], expected, atol=1e-5)
            if bad.crops_calls > asked:
                break
        assert bad.crops_calls > asked, "the wrong one was never asked"
        states = await circuits(addresses)
        assert states[good_endpoint] == "closed"
        assert states[bad_endpoint] in {"open", "half_open"}
        bad.spoil = None
        await all_work(addresses)
        assert good.crops_calls > 0


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.__name__)
async def test_where_the_only_worker_answers_wrongly_the_code_is_clear(archive, faces, wrong):
    pictures, _ = faces
    async with (
        torchserve_service(archive) as (bad, endpoint),
        gateway_over(archive, endpoint) as addresses,
        AsyncClient(addresses["gRPC"], ClientConfig(max_attempts=1)) as client,
    ):
        await all_work(addresses)
        bad.spoil = wrong
        try:
            outcomes = (await client.classify(pictures)).items
        except FerserveError as error:
            outcomes = [error]
        reasons = {outcome.reason for outcome in outcomes if isinstance(outcome, FerserveError)}
        assert reasons
        assert reasons <= {Reason.WORKER_FAILED, Reason.NOT_READY}
        assert (await circuits(addresses))[endpoint] in {"open", "half_open"}
        async with httpx.AsyncClient(base_url=addresses["REST"]) as rest:
            assert (await rest.get("/readyz")).status_code == 503
