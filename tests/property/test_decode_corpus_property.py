"""A fuzzer on decoding: the damaged pictures of tests/damaged, each drawn anew and then damaged once more."""

import warnings
from random import Random

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tests.damaged.corpus import KINDS
from tests.damaged.expected import MAX_MESSAGE_CHARS
from tests.damaged.inputs import Picture

from ferserve.faces.decode import DecodeLimits, decode
from ferserve.faces.errors import ImageTooLargeError, InvalidImageError, Reason, UnsupportedMediaError

LIMITS = DecodeLimits(max_image_bytes=2_000_000, max_image_pixels=2_000_000)
REFUSALS = {
    InvalidImageError: Reason.INVALID_IMAGE,
    UnsupportedMediaError: Reason.UNSUPPORTED_MEDIA,
    ImageTooLargeError: Reason.IMAGE_TOO_LARGE,
}
OF_PICTURES = [make for make in KINDS if isinstance(make(Random(0), 0).make(), Picture)]
CUT, FLIP, REPEAT, SPLICE, GROW = "cut", "flip", "repeat", "splice", "grow"
ONCE_MORE = st.tuples(st.sampled_from([CUT, FLIP, REPEAT, SPLICE, GROW]), st.integers(0, 2**32 - 1))


def picture(kind, seed: int, index: int) -> bytes:
    return kind(Random(f"{seed} {kind.__name__} {index}"), index).make().data


def damaged_once_more(data: bytes, how: str, seed: int) -> bytes:
    random = Random(seed)
    at, end = sorted(random.randrange(len(data) + 1) for _ in range(2))
    match how:
        case "cut":
            return data[:at] + data[end:]
        case "flip":
            changed = bytearray(data)
            for _ in range(random.randint(1, 32)):
                if changed:
                    changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
            return bytes(changed)
        case "repeat":
            return data[:end] + data[at:end] * random.randint(1, 4) + data[end:]
        case "splice":
            other = picture(random.choice(OF_PICTURES), random.randrange(1000), random.randrange(10))
            return data[:at] + other[len(other) // 2 :]
    return data[:at] + random.randbytes(random.randint(1, 400)) + data[at:]


def decode_or_refuse(data: bytes) -> None:
    """Pixels within the limits, or one of three errors with its own code; nothing else, whatever the bytes."""
    with warnings.catch_warnings(action="ignore"):  # Pillow's grumbling reaches nobody
        try:
            pixels = decode(data, LIMITS).pixels
        except tuple(REFUSALS) as error:
            refused = error
        else:
            refused = None
    if refused is not None:
        assert refused.reason is REFUSALS[type(refused)]
        assert 0 < len(refused.message) <= MAX_MESSAGE_CHARS
        return
    assert pixels.shape[2] == 3
    assert 0 < pixels.shape[0] * pixels.shape[1] <= LIMITS.max_image_pixels


def fuzz(examples: int):
    fuzzer = given(
        st.sampled_from(OF_PICTURES), st.integers(0, 2**31), st.integers(0, 30), st.lists(ONCE_MORE, max_size=3)
    )
    chosen = settings(
        max_examples=examples,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
    )

    def attack(kind, seed, index, changes):
        data = picture(kind, seed, index)
        for how, change_seed in changes:
            data = damaged_once_more(data, how, change_seed)
        decode_or_refuse(data)

    return chosen(fuzzer(attack))


def test_whatever_became_of_a_picture_it_decodes_or_gets_a_known_code():
    fuzz(80)()


@pytest.mark.long
def test_ten_thousand_pictures_that_were_damaged_twice():
    fuzz(10_000)()
