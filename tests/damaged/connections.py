"""Connections that carry no request, half of one, or one that takes for ever."""

from random import Random

from tests.damaged.expected import CLOSED, Decodes, Expected
from tests.damaged.inputs import Damaged, RawConnection
from tests.damaged.pictures import whole
from tests.damaged.rest_forms import ANALYZE

_LINE = f"POST {ANALYZE} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n".encode()
_CHUNKED = _LINE + b"Transfer-Encoding: chunked\r\n\r\n"
_INVALID = Expected(reasons=frozenset({"INVALID_REQUEST"}))
_CLOSED = Expected(reasons=frozenset({CLOSED}))


def http(rng: Random, index: int) -> Damaged:
    """What is no HTTP/1.1, or contradicts itself."""
    picture = whole("jpeg", 64)
    either = Expected(reasons=frozenset({"INVALID_REQUEST", "INVALID_IMAGE"}))
    late = Expected(reasons=frozenset({"INVALID_REQUEST", "DEADLINE"}))
    odd = Expected(reasons=frozenset({"INVALID_REQUEST"}), decodes=Decodes.PERHAPS)
    length = f"Content-Length: {len(picture)}\r\n".encode()
    forms = {
        "noise": (b"\x00" + rng.randbytes(200), _INVALID),
        "text": (b"hello, is there anybody?\r\n\r\n", _INVALID),
        "tls": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + rng.randbytes(200), _INVALID),
        "http/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9), _INVALID),
        "an unknown method": (b"BREW /v1/models HTTP/1.1\r\nHost: x\r\n\r\n", _INVALID),
        "an unknown version": (b"POST / HTTP/9.9\r\nHost: x\r\n\r\n", _INVALID),
        "a length that is none": (_LINE + b"Content-Length: many\r\n\r\n" + picture, _INVALID),
        "a negative length": (_LINE + b"Content-Length: -1\r\n\r\n" + picture, _INVALID),
        "a length of 30 digits": (_LINE + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n" + picture, _INVALID),
        "two lengths": (_LINE + length + b"Content-Length: 5\r\n\r\n" + picture, _INVALID),
        "a length and chunks": (_LINE + length + b"Transfer-Encoding: chunked\r\n\r\n" + picture, _INVALID),
        "an unknown transfer": (_LINE + b"Transfer-Encoding: nonsense\r\n\r\n" + picture, either),
        "chunks that are none": (_CHUNKED + b"ZZ\r\n" + picture, _INVALID),
        "a chunk of 2^63 bytes": (_CHUNKED + b"8000000000000000\r\n" + b"a" * 10, late),
        "a negative chunk": (_CHUNKED + b"-5\r\nhello\r\n0\r\n\r\n", _INVALID),
        "a header without a name": (_LINE + b": value\r\n\r\n", _INVALID),
        "a header with a zero byte": (_LINE + b"X: a\x00b\r\n\r\n", _INVALID),
        "a path that is no ascii": (b"POST /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n", _INVALID),
        "no host": (b"POST /v1/images:analyze HTTP/1.1\r\nConnection: close\r\n" + length + b"\r\n" + picture, odd),
        "an upgrade": (_LINE + b"Connection: Upgrade\r\nUpgrade: h2c\r\n" + length + b"\r\n" + picture,
                       Expected(reasons=frozenset({"INVALID_REQUEST", "INVALID_IMAGE"}), decodes=Decodes.PERHAPS)),
        "trailers without end": (_CHUNKED + b"0\r\n" + b"X-Y: z\r\n" * 20_000, late),
    }  # fmt: skip
    what = list(forms)[index % len(forms)]
    data, expected = forms[what]
    return _connection("http", index, what, RawConnection(pieces=(data,)), expected)


def grpc_port(rng: Random, index: int) -> Damaged:
    """Bytes on the gRPC port that are no gRPC; its HTTP/2 closes the connection."""
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    settings = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
    forms = {
        "noise": b"\x00" + rng.randbytes(300),
        "http/1.1": _LINE + b"Content-Length: 0\r\n\r\n",
        "a preface and noise": preface + settings + b"\xff" * 300,
        "a frame of 16 MB": preface + settings + b"\xff\xff\xff\x00\x01\x00\x00\x00\x01",
        "headers that are none": preface + settings + b"\x00\x00\x20\x01\x05\x00\x00\x00\x01" + b"\xff" * 32,
        "settings of odd length": preface + b"\x00\x00\x05\x04\x00\x00\x00\x00\x00hello",
        "a half-closed connection": preface + settings,
    }
    what = list(forms)[index % len(forms)]
    script = RawConnection(pieces=(forms[what],), ending="half", to_grpc=True)
    return _connection("grpc port", index, what, script, _CLOSED)


def slow_sender(rng: Random, index: int) -> Damaged:
    """A byte every now and then, for as long as the server bears it."""
    picture = whole("jpeg", 64)
    pause_s = rng.choice((0.05, 0.2, 0.5))
    head = _LINE + f"Content-Length: {len(picture)}\r\n\r\n".encode()
    late = Expected(reasons=frozenset({"DEADLINE"}))
    forms = {
        "a head": ((), head, _CLOSED),
        "headers without end": ((_LINE,), b"X-Y: z\r\n" * 2000, _CLOSED),
        "a body": ((head,), picture, late),
        "chunks": ((_CHUNKED,), b"1\r\na\r\n" * 500, late),
        "half a body, then": ((head + picture[:500],), picture[500:], late),
        "empty lines": ((), b"\r\n" * 2000, _CLOSED),
    }
    what = list(forms)[index % len(forms)]
    at_once, slowly, expected = forms[what]
    pieces = (*at_once, *(slowly[at : at + 1] for at in range(len(slowly))))
    return _connection(
        "slow sender", index, f"{what}, {pause_s} s a byte", RawConnection(pieces=pieces, pause_s=pause_s), expected
    )


def half_closed(rng: Random, index: int) -> Damaged:
    """A caller who sends no more, or hangs up: in the head, in the body, or right behind it, before the answer."""
    picture = whole("jpeg", 96)
    head = _LINE + f"Content-Length: {len(picture)}\r\n\r\n".encode()
    chunk = f"{len(picture):x}\r\n".encode()
    forms = {
        "in the head": head[: rng.randrange(1, len(head))],
        "behind the head": head,
        "in the body": head + picture[: rng.randrange(1, len(picture))],
        "in a chunk": _CHUNKED + chunk + picture[: rng.randrange(1, len(picture))],
        "between chunks": _CHUNKED + chunk + picture + b"\r\n",
        "behind the body": head + picture,
        "at once": b"",
    }
    what = list(forms)[index % len(forms)]
    ending = ("half", "close")[index // len(forms) % 2]
    reasons = frozenset({CLOSED, "INVALID_REQUEST"})
    # Whoever has sent all of it and still listens gets the answer.
    decodes = Decodes.ALWAYS if what == "behind the body" and ending == "half" else Decodes.NEVER
    return _connection(
        "half closed",
        index,
        f"{what}, {ending}",
        RawConnection(pieces=(forms[what],), ending=ending),
        Expected(reasons=reasons, decodes=decodes),
    )


def _connection(kind: str, index: int, what: str, connection: RawConnection, expected: Expected) -> Damaged:
    return Damaged(kind=kind, index=index, what=what, make=lambda: connection, expected=expected)
