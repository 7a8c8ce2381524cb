"""When certificates end, read from the files themselves: Python's `ssl` tells that of a peer's certificate only.

Certificates are ASN.1 in DER (RFC 5280, 4.1): elements of a tag, a length and a content, one within the other.
"""

import math
import re
import ssl
from datetime import UTC, datetime
from typing import Final

_PEM: Final = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_LONG_LENGTH: Final = 0x80
_VERSION_TAG: Final = 0xA0
_UTC_TIME_TAG: Final = 0x17


def earliest_end_s(pem: bytes) -> float:
    """When the first of these certificates ends; a chain is good for no longer than that.

    Args:
        pem: one or several certificates, which OpenSSL has taken.
    Returns:
        Seconds since 1970; NaN where no certificate says it in the form that RFC 5280 asks for.
    """
    try:
        found = _PEM.findall(pem.decode("ascii", errors="replace"))
        return min(_end_s(ssl.PEM_cert_to_DER_cert(certificate)) for certificate in found)
    except (ValueError, IndexError):
        return math.nan


def _end_s(certificate_der: bytes) -> float:
    _tag, certificate, _rest = _element(certificate_der)
    _tag, fields, _rest = _element(certificate)
    tag, _version, behind_version = _element(fields)
    if tag == _VERSION_TAG:  # optional
        fields = behind_version
    for _skipped in ("serial number", "signature's algorithm", "issuer"):
        _tag, _content, fields = _element(fields)
    _tag, validity, _rest = _element(fields)
    _tag, _not_before, not_after = _element(validity)
    tag, text, _rest = _element(not_after)
    form = "%y%m%d%H%M%SZ" if tag == _UTC_TIME_TAG else "%Y%m%d%H%M%SZ"
    return datetime.strptime(text.decode("ascii"), form).replace(tzinfo=UTC).timestamp()


def _element(der: bytes) -> tuple[int, bytes, bytes]:
    """Tag and content of the first element, and what is behind it."""
    length, start = der[1], 2
    if length & _LONG_LENGTH:
        start += length & ~_LONG_LENGTH
        length = int.from_bytes(der[2:start])
    return der[0], der[start : start + length], der[start + length :]
