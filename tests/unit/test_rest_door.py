import pytest

from ferserve.serving.requests import Priority
from ferserve.serving.rest_door import priority_in


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
