import importlib.resources
import re

import httpx
import pytest

from ferserve.serving.admin import create_admin_app
from ferserve.serving.body_budget import BodyBudget
from ferserve.serving.engine import EngineConfig, ModelsConfig, open_archives, running_engine
from ferserve.serving.health import Health
from ferserve.serving.metrics import Metrics
from ferserve.serving.pages import FOLDER, HEADERS
from ferserve.serving.rest_api import HttpConfig, create_rest_app
from ferserve.serving.streams import StreamConfig

FILES = sorted(entry.name for entry in importlib.resources.files(FOLDER).iterdir() if not entry.name.startswith("__"))
HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@pytest.fixture
def client_of(fake_analyzer, fake_observer):
    def make(**settings):
        app = create_rest_app(
            fake_analyzer,
            Health(),
            HttpConfig(**settings),
            max_image_bytes=1000,
            streams=StreamConfig(),
            bodies=BodyBudget(1000),
            observer=fake_observer,
            version="1",
        )
        return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")

    return make


@pytest.fixture
async def admin(tiny_archive):
    config, metrics = EngineConfig(models=ModelsConfig(archives=(str(tiny_archive),))), Metrics()
    async with running_engine(config, open_archives(config.models), metrics) as engine:
        app = create_admin_app(engine, Health(), metrics, version="1", clock=lambda: 0.0)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            yield client


async def test_the_page_and_all_that_it_names_is_served_with_a_strict_policy(client_of):
    async with client_of() as client:
        page = await client.get("/")
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        for name in re.findall(r'(?:src|href)="(web/[^"]+)"', page.text):
            assert (await client.get(f"/{name}")).status_code == 200, name
        for answer in (page, await client.get("/web/main.js")):
            for header, value in HEADERS.items():
                assert answer.headers[header] == value
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "http" not in policy


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".js")])
async def test_every_module_comes_as_a_script_and_imports_what_is_there(client_of, name):
    async with client_of() as client:
        script = await client.get(f"/web/{name}")
    assert script.headers["content-type"] == "text/javascript; charset=utf-8"
    for imported in re.findall(r'from "(.+?)"', script.text):
        assert imported.startswith("./")
        assert imported.removeprefix("./") in FILES


@pytest.mark.parametrize("name", FILES)
def test_no_file_names_another_host_or_needs_an_exception_from_the_policy(name):
    text = importlib.resources.files(FOLDER).joinpath(name).read_text()
    assert re.findall(r"(?:https?:)?//[\w.-]+\.\w+", text.replace("http://www.w3.org/2000/svg", "")) == []
    assert re.findall(r"\bon\w+=\"|style=\"|<script>|<style|javascript:|\beval\(", text) == []
    assert text.count("\n") < 300


async def test_what_did_not_change_is_not_sent_again(client_of):
    async with client_of() as client:
        first = await client.get("/web/page.css")
        again = await client.get("/web/page.css", headers={"If-None-Match": first.headers["etag"]})
        changed = await client.get("/web/page.css", headers={"If-None-Match": '"other"'})
    assert (again.status_code, again.content) == (304, b"")
    assert changed.content == first.content


async def test_a_file_that_is_not_there_is_not_found(client_of):
    async with client_of() as client:
        for name in ("/web/none.js", "/web/__init__.py", "/web/..%2fpages.py"):
            assert (await client.get(name)).status_code == 404


async def test_a_setting_turns_the_page_off(client_of):
    async with client_of(page=False) as client:
        assert (await client.get("/")).status_code == 404
        assert (await client.get("/web/main.js")).status_code == 404


async def test_the_page_is_no_part_of_the_api_document(client_of):
    async with client_of() as client:
        assert all(path.startswith(("/v1/", "/v2")) for path in (await client.get("/openapi.json")).json()["paths"])


async def test_status_is_a_page_to_browsers_and_json_to_programs(admin):
    page = await admin.get("/status", headers=HTML)
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["content-security-policy"] == HEADERS["Content-Security-Policy"]
    assert (await admin.get("/web/status.js")).status_code == 200
    assert (await admin.get("/", headers=HTML)).headers["location"] == "status"
    for answer in (await admin.get("/status"), await admin.get("/status?format=json", headers=HTML)):
        assert answer.headers["content-type"] == "application/json"
        assert answer.json()["state"] == "starting"
        assert answer.headers["vary"] == "Accept"
