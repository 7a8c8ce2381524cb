"""The end that is read is the one that a library for certificates reads, whatever comes before it in them."""

import math
from datetime import UTC, datetime, timedelta

import pytest
import trustme
from cryptography import x509
from tests.integration.certificates import HOSTS

from ferserve.serving.certificates import earliest_end_s

NOW = datetime(2030, 5, 17, 12, 0, 0, tzinfo=UTC)
ENDS = [NOW + timedelta(days=3), datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC), datetime(2051, 1, 1, tzinfo=UTC)]
"""Of UTCTime, the last of it, and of GeneralizedTime, by RFC 5280."""


@pytest.fixture(scope="module")
def ca():
    return trustme.CA()


def pem(ca, ends):
    return ca.issue_cert(*HOSTS, not_before=NOW - timedelta(days=1), not_after=ends).cert_chain_pems[0].bytes()


@pytest.mark.parametrize("ends", ENDS)
def test_the_end_is_read_to_the_second(ca, ends):
    certificate = pem(ca, ends)
    assert earliest_end_s(certificate) == ends.timestamp()
    assert x509.load_pem_x509_certificate(certificate).not_valid_after_utc == ends


def test_of_several_the_first_to_end_counts_and_words_between_them_do_not(ca):
    together = b"the server\n" + pem(ca, ENDS[2]) + b"\nits authority\n" + pem(ca, ENDS[0]) + pem(ca, ENDS[1])
    assert earliest_end_s(together) == ENDS[0].timestamp()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no certificate",
        b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----\n\xff\n-----END CERTIFICATE-----\n",
    ],
)
def test_what_does_not_say_it_is_not_known(content):
    assert math.isnan(earliest_end_s(content))
