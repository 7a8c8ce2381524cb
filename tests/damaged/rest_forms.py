"""Requests to the REST port whose form is wrong, whatever picture they hold: multipart, JSON, query, headers, types."""

import base64
import gzip
import json
from random import Random

from tests.damaged.expected import OF_THE_REQUEST, Decodes, Expected
from tests.damaged.inputs import Damaged, HttpRequest
from tests.damaged.pictures import whole

ANALYZE = "/v1/images:analyze"
BATCH = "/v1/images:batchAnalyze"
CLASSIFY = "/v1/faces:classify"
_FIELDS = {ANALYZE: "image", BATCH: "images", CLASSIFY: "faces"}
_INVALID = Expected(reasons=frozenset({"INVALID_REQUEST"}))
_REFUSED = Expected(reasons=OF_THE_REQUEST)
_ALWAYS = Expected(decodes=Decodes.ALWAYS)
_PERHAPS = Expected(reasons=OF_THE_REQUEST, decodes=Decodes.PERHAPS)


def multipart(rng: Random, index: int) -> Damaged:
    """Bodies that are nearly a form."""
    target = rng.choice(list(_FIELDS))
    field, picture = _FIELDS[target].encode(), whole("jpeg", 64)
    forms = _multipart_forms(field, picture)
    what = list(forms)[index % len(forms)]
    body = forms[what]
    if what == "cut off":
        body = body[: rng.randrange(1, len(body) - 6)]
    parameter = {"no boundary": "", "an empty boundary": "; boundary=", "a boundary in quotes": '; boundary="B'}
    return _request(
        "multipart",
        index,
        f"{what} to {target}",
        HttpRequest(
            target=target,
            headers=(("Content-Type", "multipart/form-data" + parameter.get(what, "; boundary=B")),),
            body=body,
        ),
        _REFUSED,
    )


def _part(name: bytes, data: bytes, *, end: bytes = b"\r\n") -> bytes:
    disposition = b'Content-Disposition: form-data; name="' + name + b'"; filename="a.jpg"'
    return b"--B" + end + disposition + end + end + data + end


def _multipart_forms(field: bytes, picture: bytes) -> dict[str, bytes]:
    one = _part(field, picture)
    whole_form = one + b"--B--\r\n"
    return {
        "no boundary": whole_form,
        "an empty boundary": whole_form,
        "a boundary in quotes": whole_form,
        "another boundary": whole_form.replace(b"--B", b"--C"),
        "cut off": whole_form,
        "no end": one,
        "nothing": b"",
        "the end alone": b"--B--\r\n",
        "another name": _part(b"picture", picture) + b"--B--\r\n",
        "a name that is no utf-8": _part(b"\xff\xfe", picture) + b"--B--\r\n",
        "no name": b"--B\r\nContent-Type: image/jpeg\r\n\r\n" + picture + b"\r\n--B--\r\n",
        "no headers": b"--B\r\n\r\n" + picture + b"\r\n--B--\r\n",
        "headers without end": b"--B\r\n" + b"X-Y: z\r\n" * 500,
        "a header of 50 kB": b"--B\r\nX-Y: " + b"z" * 50_000 + b"\r\n\r\n" + picture + b"\r\n--B--\r\n",
        "a header without a colon": b"--B\r\nnonsense\r\n\r\n" + picture + b"\r\n--B--\r\n",
        "line feeds alone": _part(field, picture, end=b"\n") + b"--B--\n",
        "600 parts": _part(field, b"") * 600 + b"--B--\r\n",
        "a part within a part": _part(field, _part(b"x", picture)),
        "an empty part": _part(field, b"") + b"--B\r\n",
        "another field beside it": one + _part(b"model", b"mobilenet") + b"--B--\r\n",
        "noise": Random(len(picture)).randbytes(2000),
    }  # fmt: skip


def json_body(rng: Random, index: int) -> Damaged:
    """Bodies that are nearly the JSON that is asked for, or whose base64 is none."""
    picture = base64.b64encode(whole("jpeg", 64)).decode()
    bodies = _json_bodies(picture, rng)
    what = list(bodies)[index % len(bodies)]
    target = BATCH if what.startswith("batch") else ANALYZE
    request = HttpRequest(target=target, headers=(("Content-Type", "application/json"),), body=bodies[what])
    return _request("json", index, what, request, _REFUSED)


def _json_bodies(picture: str, rng: Random) -> dict[str, bytes]:
    good = json.dumps({"image": picture}).encode()

    def image(text: object) -> bytes:
        return json.dumps({"image": text}).encode()

    def options(**values: object) -> bytes:
        return json.dumps({"image": picture, "options": values}).encode()

    return {
        "nothing": b"",
        "cut off": good[: rng.randrange(1, len(good))],
        "two documents": good + good,
        "utf-16": good.decode().encode("utf-16"),
        "no utf-8": good[:-2] + b"\xff\xfe" + good[-2:],
        "noise": rng.randbytes(300),
        "100,000 brackets": b"[" * 100_000,
        "an image in 100,000 brackets": b'{"image":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        "a list": b"[]",
        "null": b"null",
        "a number": b"1e999999",
        "no image": b"{}",
        "an image of null": image(None),
        "an image that is a number": image(5),
        "an image that is a list": image([picture]),
        "an image that is an object": image({"url": "http://localhost/"}),
        "an address for an image": image("https://localhost/a.jpg"),
        "a data address": image("data:image/jpeg;base64," + picture),
        "base64 with a stroke": image(picture[:100] + "|" + picture[101:]),
        "base64 with a space": image(picture[:100] + " " + picture[100:]),
        "base64 of an odd length": image(picture.rstrip("=")[:-3] + "A" * (5 - len(picture.rstrip("=")[:-3]) % 4)),
        "base64 padded too much": image(picture.rstrip("=") + "===="),
        "base64 of umlauts": image("Bild für alle"),
        "base64 of nothing": image(""),
        "a lone surrogate": b'{"image":"' + picture.encode() + b'","options":{"model":"\\ud800"}}',
        "an unknown field": json.dumps({"image": picture, "imag": 1}).encode(),
        "1,000 unknown fields": json.dumps({"image": picture} | {f"x{n}": n for n in range(1000)}).encode(),
        "an unknown field of 1 MB": json.dumps({"image": picture, "x" * 2**20: 1}).encode(),
        "an unknown option": options(exakt=True),
        "a detection size of 0": options(detection_size=0),
        "a detection size of 1e30": options(detection_size=10**30),
        "a detection size of text": options(detection_size="large"),
        "no faces": options(max_faces=0),
        "a fraction of a face": options(max_faces=1.5),
        "an unknown priority": options(priority="urgent"),
        "a priority that is a list": options(priority=["bulk"]),
        "options that are a list": json.dumps({"image": picture, "options": []}).encode(),
        "batch of nothing": b'{"images":[]}',
        "batch of 600": json.dumps({"images": [""] * 600}).encode(),
        "batch that is no list": json.dumps({"images": picture}).encode(),
        "batch of numbers": json.dumps({"images": list(range(600))}).encode(),
    }


def query(rng: Random, index: int) -> Damaged:
    """Options that are unknown, out of range, twice there or far too long."""
    number = rng.choice(("-1", "0", "63", "4097", "1e3", "640.5", "0x10", "abc", "", "9" * 400, "%00", "%D9%A3"))
    queries = {
        "an unknown option": (f"maximum={number}", _INVALID),
        "an unknown option of 8 kB": ("x" * 8000 + "=1", _INVALID),
        "2,000 unknown options": ("&".join(f"x{n}=1" for n in range(2000)), _INVALID),
        "a detection size": (f"detection_size={number}", _INVALID),
        "a number of faces": (f"max_faces={number if number not in ('63', '640.5') else '1001'}", _INVALID),
        "exactness": (f"exact={rng.choice(('perhaps', '2', '', 'nul', '-1'))}", _INVALID),
        "a priority": (f"priority={rng.choice(('urgent', '0', '', 'PRIORITY_', 'bulk%20'))}", _INVALID),
        "an unknown model": ("model=nothing", Expected(reasons=frozenset({"MODEL_NOT_FOUND"}))),
        "a model that is a path": ("model=../../etc/passwd", Expected(reasons=frozenset({"MODEL_NOT_FOUND"}))),
        "a model of 8 kB": ("model=" + "m" * 8000, Expected(reasons=frozenset({"MODEL_NOT_FOUND"}))),
        "a model that is no utf-8": ("model=%ff%fe", Expected(reasons=frozenset({"MODEL_NOT_FOUND"}))),
        "a name in capitals": ("Max_Faces=1", _INVALID),
        "an option twice": ("max_faces=1&max_faces=2", _PERHAPS),
        "separators alone": ("&&&;&", _PERHAPS),
        "an address of 100 kB": ("max_faces=1&" + "x" * 100_000, _INVALID),
    }
    what = list(queries)[index % len(queries)]
    text, expected = queries[what]
    request = HttpRequest(target=f"{ANALYZE}?{text}", headers=(("Content-Type", "image/jpeg"),), body=whole("jpeg", 64))
    return _request("query", index, what, request, expected)


def headers(rng: Random, index: int) -> Damaged:
    """Nonsense in headers that are read, and in headers that are not."""
    nonsense = rng.choice(
        ("", "abc", "-5", "0", "1e3", "9" * 30, "600001", "5ms", "0x10", "NaN", "1.5", "5, 6", "\xb2")
    )
    picture = whole("jpeg", 64)
    # Admission refuses what cannot be done in time before it has cost anything.
    timed_out = Expected(reasons=frozenset({"DEADLINE", "OVERLOADED"}), decodes=Decodes.PERHAPS)
    unread = Expected(reasons=frozenset({"UNSUPPORTED_MEDIA"}))
    forms: dict[str, tuple[tuple[tuple[str, str], ...], bytes, Expected]] = {
        "a time that is none": ((("X-Request-Timeout-Ms", nonsense),), picture, _INVALID),
        "a time of one millisecond": ((("X-Request-Timeout-Ms", "1"),), picture, timed_out),
        "two times": ((("X-Request-Timeout-Ms", "5000"), ("X-Request-Timeout-Ms", "abc")), picture, _PERHAPS),
        "an id of 500 characters": ((("X-Request-Id", "i" * 500),), picture, _ALWAYS),
        "an id of odd characters": ((("X-Request-Id", "a b\xe9;<script>"),), picture, _ALWAYS),
        "a gzipped body": ((("Content-Encoding", "gzip"),), gzip.compress(picture, mtime=0), unread),
        "an unknown encoding": ((("Content-Encoding", "nonsense"),), picture, _ALWAYS),
        "what it does not accept": ((("Accept", "text/plain;q=0"), ("Accept-Encoding", "x")), picture, _ALWAYS),
        "a range": ((("Range", "bytes=5-"), ("If-Match", "x"), ("Content-Range", "bytes 1-2/3")), picture, _ALWAYS),
        "500 headers": (tuple((f"X-{n}", "y") for n in range(500)), picture, _ALWAYS),
        "a header of 30 kB": ((("X-Long", "y" * 30_000),), picture, _ALWAYS),
        "a header of 200 kB": ((("X-Long", "y" * 200_000),), picture, _INVALID),
        "who it is forwarded for": ((("X-Forwarded-For", "\xff" * 9), ("Forwarded", "for=;;")), picture, _ALWAYS),
        "a cookie": ((("Cookie", "=;=;" * 500), ("Authorization", "Basic \xff")), picture, _ALWAYS),
    }  # fmt: skip
    what = list(forms)[index % len(forms)]
    named, body, expected = forms[what]
    request = HttpRequest(target=ANALYZE, headers=(("Content-Type", "image/jpeg"), *named), body=body)
    return _request("headers", index, what, request, expected)


def content_type(rng: Random, index: int) -> Damaged:
    """Bodies of another type than they say, and types that nobody knows."""
    picture = whole("jpeg", 64)
    as_json = json.dumps({"image": base64.b64encode(picture).decode()}).encode()
    unread = Expected(reasons=frozenset({"UNSUPPORTED_MEDIA"}))
    types = {
        "text/plain": (picture, unread),
        "video/mp4": (picture, unread),
        "application/x-www-form-urlencoded": (b"image=" + picture.hex().encode(), unread),
        "application/grpc": (picture, unread),
        "multipart/mixed; boundary=B": (picture, unread),
        "image": (picture, unread),
        "*/*": (picture, unread),
        ";;;=": (picture, _PERHAPS),
        "\xff\xfe": (picture, unread),
        "x" * 5000: (picture, unread),
        "application/json": (picture, _INVALID),
        "application/json; charset=utf-16": (as_json.decode().encode("utf-16"), _INVALID),
        "multipart/form-data; boundary=B": (picture, _INVALID),
        "application/octet-stream": (as_json, unread),
        "image/jpeg": (as_json, unread),
        "image/png": (picture, _ALWAYS),
        "image/nonsense": (picture, _ALWAYS),
        "IMAGE/JPEG; q=1": (picture, _ALWAYS),
    }
    name = list(types)[index % len(types)]
    body, expected = types[name]
    target = ANALYZE if index // len(types) % 2 == 0 else rng.choice((BATCH, CLASSIFY))
    if target != ANALYZE:
        expected = Expected(reasons=frozenset({"UNSUPPORTED_MEDIA", "INVALID_REQUEST"}))
    request = HttpRequest(target=target, headers=(("Content-Type", name),), body=body)
    return _request("content type", index, f"{name[:40]!a} to {target}", request, expected)


def _request(kind: str, index: int, what: str, request: HttpRequest, expected: Expected) -> Damaged:
    return Damaged(kind=kind, index=index, what=what, make=lambda: request, expected=expected)
