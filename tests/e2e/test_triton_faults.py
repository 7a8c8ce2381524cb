"""Triton servers that die, hang and come back, behind a real gateway under load. Each test tells its figures."""

import asyncio
import io
import json
import os
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from tests.e2e.triton_server import TritonServer

from ferserve.faces.errors import FerserveError
from ferserve.faces.index import open_archive
from ferserve.serving.client import AsyncClient
from ferserve.serving.triton_model.repository import RepositoryOptions, write_repository

pytestmark = [pytest.mark.e2e, pytest.mark.long]
CALLERS = 4
CALL_S = 20.0
"""What each caller waits for its answer; more than one stalled call and a retry take."""
STEADY = 40
"""Answers that show that things run as they should."""
RECOVERY_S = 120.0
SETTINGS = """
[workers]
kind = "triton"
endpoints = {endpoints}
call_timeout_s = 5.0
probe_interval_s = 1.0
[models]
precision = "fp32"
[admission]
deadline_share = 1.0
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory, ferserve_command):
    folder = tmp_path_factory.mktemp("triton") / "models"
    subprocess.run([ferserve_command, "triton", "default", "--out", folder], check=True, timeout=120)
    return folder


@pytest.fixture
def start_triton(repository, tmp_path):
    servers = []

    def start(port: int | None = None) -> TritonServer:
        servers.append(TritonServer(repository, tmp_path / f"triton-{len(servers)}.log", port=port))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


class Load:
    """Callers who ask for one face after the other, and how that ended."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._stopped = False
        self._one_more = asyncio.Event()
        self.answered = 0
        self.failed: Counter[str] = Counter()
        self.slowest_s = 0.0
        self.archives: set[str] = set()

    async def caller(self, seed: int) -> None:
        face = np.random.default_rng(seed).integers(0, 255, (48, 48), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(face).save(buffer, "PNG")
        async with AsyncClient(self._target) as client:
            while not self._stopped:
                began_s = time.monotonic()
                try:
                    answer = await client.classify([buffer.getvalue()], timeout_s=CALL_S)
                    (item,) = answer.items
                except FerserveError as error:
                    item = error
                if isinstance(item, FerserveError):
                    self.failed[f"{item.reason}: {item.message}"] += 1
                    await asyncio.sleep(0.05)
                else:
                    assert abs(item.scores.sum() - 1) < 1e-3
                    self.answered += 1
                    self.archives.add(answer.model.archive_sha256)
                    self._one_more.set()
                    self.slowest_s = max(self.slowest_s, time.monotonic() - began_s)

    async def more(self, answers: int = STEADY) -> None:
        """Wait for so many more answers."""
        wanted = self.answered + answers
        async with asyncio.timeout(RECOVERY_S):
            while self.answered < wanted:
                self._one_more.clear()
                await self._one_more.wait()

    def stop(self) -> None:
        self._stopped = True


@asynccontextmanager
async def load_on(target: str) -> AsyncIterator[Load]:
    load = Load(target)
    async with asyncio.TaskGroup() as group:
        for seed in range(CALLERS):
            group.create_task(load.caller(seed))
        yield load
        load.stop()


@pytest.fixture
def start_with(start_gateway, tmp_path) -> Callable:
    """A gateway over these Tritons, once all of them work."""

    def start(*servers: TritonServer, archive: str | Path = "default"):
        file = tmp_path / "gateway.toml"
        file.write_text(SETTINGS.format(endpoints=json.dumps([server.endpoint for server in servers])))
        served = start_gateway("--config", str(file), "--model", str(archive))
        wait_for(lambda: set(circuits(served).values()) == {"closed"})
        return served

    return start


def circuits(served) -> dict[str, str]:
    (model,) = httpx.get(f"{served.admin}/status", timeout=30).json()["models"]
    return {worker["name"]: worker["circuit"] for worker in model["workers"]}


def wait_for(reached: Callable[[], bool]) -> float:
    began_s = time.monotonic()
    while not reached():
        assert time.monotonic() - began_s < RECOVERY_S
        time.sleep(0.1)
    return time.monotonic() - began_s


async def circuit_becomes(served, endpoint: str, *states: str) -> float:
    return await asyncio.to_thread(wait_for, lambda: circuits(served)[endpoint] in states)


async def test_a_killed_stub_comes_back_by_itself(start_triton, start_with, tell):
    triton = start_triton()
    served = start_with(triton)
    async with load_on(served.grpc) as load:
        await load.more()
        assert not load.failed
        triton.kill_stubs()
        killed_s = time.monotonic()
        await circuit_becomes(served, triton.endpoint, "open", "half_open")
        found_s = time.monotonic() - killed_s
        await circuit_becomes(served, triton.endpoint, "closed")
        recovered_s = time.monotonic() - killed_s
        await load.more()
    tell(f"stub killed: out after {found_s:.1f} s, back after {recovered_s:.1f} s, {load.failed.total()} refused")
    assert all(told.startswith(("NOT_READY", "WORKER_FAILED")) for told in load.failed)


async def test_of_two_tritons_one_is_killed_and_no_answer_is_lost(start_triton, start_with, tell):
    first, second = start_triton(), start_triton()
    served = start_with(first, second)
    async with load_on(served.grpc) as load:
        await load.more()
        first.kill()
        await circuit_becomes(served, first.endpoint, "open", "half_open")
        await load.more()
        again = start_triton(int(first.endpoint.rpartition(":")[2]))
        assert again.endpoint == first.endpoint
        back_s = await circuit_becomes(served, first.endpoint, "closed")
        await load.more()
    tell(
        f"Triton killed: {load.answered} answers, slowest {load.slowest_s:.1f} s; used {back_s:.1f} s after its restart"
    )
    assert not load.failed


async def test_of_two_stubs_one_is_killed_and_no_answer_is_lost(start_triton, start_with, tell):
    first, second = start_triton(), start_triton()
    served = start_with(first, second)
    async with load_on(served.grpc) as load:
        await load.more()
        first.kill_stubs()
        await circuit_becomes(served, first.endpoint, "open", "half_open")
        back_s = await circuit_becomes(served, first.endpoint, "closed")
        await load.more()
    tell(f"stub of two killed: {load.answered} answers, slowest {load.slowest_s:.1f} s; back after {back_s:.1f} s")
    assert not load.failed


async def test_of_two_tritons_one_hangs_and_no_answer_is_lost(start_triton, start_with, tell):
    first, second = start_triton(), start_triton()
    served = start_with(first, second)
    async with load_on(served.grpc) as load:
        await load.more()
        os.kill(first.process.pid, signal.SIGSTOP)
        await circuit_becomes(served, first.endpoint, "open", "half_open")
        await load.more()
        os.kill(first.process.pid, signal.SIGCONT)
        back_s = await circuit_becomes(served, first.endpoint, "closed")
        await load.more()
    tell(
        f"Triton stopped: {load.answered} answers, slowest {load.slowest_s:.1f} s; used {back_s:.1f} s after it went on"
    )
    assert not load.failed


async def test_an_archive_is_replaced_on_triton_and_no_answer_is_lost(
    repository, start_triton, start_with, pack_archive, tiny_graph_of_seed, tmp_path, tell
):
    path = tmp_path / "served.mar"
    versions = [open_archive(str(pack_archive("tiny", graph=tiny_graph_of_seed(seed)))) for seed in (1, 2)]
    for version in versions:
        write_repository(version, repository, RepositoryOptions())
    shutil.copyfile(versions[0].path, path)
    served = start_with(start_triton(), archive=path)
    async with load_on(served.grpc) as load, httpx.AsyncClient(base_url=served.admin, timeout=RECOVERY_S) as admin:
        await load.more()
        shutil.copyfile(versions[1].path, path)
        began_s = time.monotonic()
        answer = (await admin.post("/archives/tiny:reload")).json()
        took_s = time.monotonic() - began_s
        await load.more()
    tell(f"archive replaced on Triton: {load.answered} answers, slowest {load.slowest_s:.1f} s; reload {took_s:.1f} s")
    assert answer["model"]["archive_sha256"] == versions[1].sha256
    assert load.archives == {version.sha256 for version in versions}
    assert not load.failed
