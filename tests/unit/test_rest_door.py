import pytest
from starlette.requests import Request

from ferserve.serving.errors import OverloadedError, UnauthenticatedError
from ferserve.serving.purposes import Scope
from ferserve.serving.requests import Priority
from ferserve.serving.rest_door import Door, priority_in
from ferserve.serving.rest_gate import asking
from ferserve.serving.rest_middleware import REFUSED_ROUTE

ANALYZE = "/v1/images:analyze"


@pytest.mark.parametrize(
    ("content_type", "query", "priority"),
    [
        ("image/jpeg", b"", Priority.INTERACTIVE),
        ("image/jpeg", b"max_faces=3", Priority.INTERACTIVE),
        ("multipart/form-data; boundary=a", b"priority=bulk", Priority.BULK),
        ("", b"model=m&priority=PRIORITY_BULK", Priority.BULK),
        ("image/png", b"priority=unspecified", Priority.INTERACTIVE),
        ("application/json", b"", None),
        ("image/png", b"priority=low", None),
        ("image/png", b"priority=bulk&priority=interactive", None),
        ("image/png", b"pri%6frity=bulk", None),
    ],
)
def test_the_head_tells_the_priority_or_nothing(content_type: str, query: bytes, priority: Priority | None):
    assert priority_in(content_type, query) is priority


class House:
    """A gate, a house that may be full, and the route behind both; who was asked stands in `asked`."""

    def __init__(self, *, known: bool, full: bool) -> None:
        self.known, self.full, self.asked = known, full, []
        self.door = Door(self.route, check_room=self.check_room, gate=self)
        self.scope = {
            "type": "http",
            "method": "POST",
            "path": ANALYZE,
            "query_string": b"",
            "headers": [(b"content-type", b"image/jpeg")],
            "state": {"request_id": "1"},
        }

    def identify(self, _authorization: list[str], scope: Scope) -> None:
        self.asked.append(scope)
        if not self.known:
            raise UnauthenticatedError("no key")

    def check_room(self, priority: Priority, _context: object) -> None:
        self.asked.append(priority)
        if self.full:
            raise OverloadedError("full", retry_after_s=1.0)

    async def route(self, scope: dict, _receive: object, _send: object) -> None:
        await asking(self, Scope.ANALYZE)(Request(scope))
        self.asked.append("route")

    async def receive(self) -> dict:
        raise AssertionError("nothing is read at the door")

    async def send(self, _message: dict) -> None:
        raise AssertionError("nothing is sent at the door")

    async def enter(self) -> None:
        await self.door(self.scope, self.receive, self.send)


async def test_who_has_no_key_is_not_counted_among_those_that_a_full_house_refuses():
    house = House(known=False, full=True)
    with pytest.raises(UnauthenticatedError):
        await house.enter()
    assert house.asked == [Scope.ANALYZE]
    assert house.scope["state"][REFUSED_ROUTE] == ANALYZE


async def test_who_has_a_key_is_asked_for_it_once_and_then_refused_or_let_in():
    house = House(known=True, full=True)
    with pytest.raises(OverloadedError):
        await house.enter()
    assert house.asked == [Scope.ANALYZE, Priority.INTERACTIVE]
    assert house.scope["state"][REFUSED_ROUTE] == ANALYZE
    house = House(known=True, full=False)
    await house.enter()
    assert house.asked == [Scope.ANALYZE, Priority.INTERACTIVE, "route"]


async def test_where_the_head_does_not_tell_the_priority_the_route_asks_for_the_key():
    house = House(known=False, full=True)
    house.scope["headers"] = [(b"content-type", b"application/json")]
    with pytest.raises(UnauthenticatedError):
        await house.enter()
    assert house.asked == [Scope.ANALYZE]
    assert REFUSED_ROUTE not in house.scope["state"]
