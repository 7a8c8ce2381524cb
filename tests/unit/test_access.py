import logging
from datetime import date

import pytest

from ferserve.serving.access import OPEN, AccessConfig, KeyGate, gate_of
from ferserve.serving.errors import (
    ConfigError,
    ForbiddenError,
    PurposeRefusedError,
    RateLimitedError,
    UnauthenticatedError,
)
from ferserve.serving.keys import new_key, read_keys, sha256_of
from ferserve.serving.purposes import GUARDED, Exemption, Purpose, Scope

KEY = "fer_" + "k" * 43
TODAY = date(2026, 11, 25)


class House:
    """A file of keys, a gate over it, and a clock that is moved by hand."""

    def __init__(self, folder):
        self.file = folder / "keys.toml"
        self.now_s = 0.0

    def write(self, **fields) -> None:
        """One entry for KEY; the new file takes the place of the old one, as Kubernetes does it."""
        entry = {"name": "kiosk", "sha256": sha256_of(KEY), "purpose": "retail"} | fields
        lines = [
            f"{name} = {value if isinstance(value, int | list) else repr(str(value))}" for name, value in entry.items()
        ]
        partial = self.file.with_suffix(".new")
        partial.write_text("\n".join(["[[key]]", *lines]) + "\n")
        partial.replace(self.file)

    def gate(self, **settings) -> KeyGate:
        settings = {"purpose_guard": True, "audit": True} | settings
        return KeyGate(self.file, clock=lambda: self.now_s, today=lambda: TODAY, **settings)


@pytest.fixture
def house(tmp_path):
    house = House(tmp_path)
    house.write()
    return house


def ask(gate, key: str = KEY, scope: Scope = Scope.ANALYZE) -> None:
    gate.identify([f"Bearer {key}"], scope)


def test_a_known_key_may_ask_and_stands_for_what_follows(house):
    gate = house.gate()
    ask(gate)
    gate.admit(Scope.ANALYZE)
    gate.admit(Scope.MODELS)


@pytest.mark.parametrize(
    "came",
    [
        [],
        [""],
        [KEY],
        [f"Basic {KEY}"],
        ["Bearer"],
        ["Bearer short"],
        [f"Bearer {KEY}x"],
        [f"Bearer {KEY} {KEY}"],
        [f"Bearer {KEY}\n"[:-1] + "\x00"],
        [f"Bearer {sha256_of(KEY)}"],
        [f"Bearer {KEY}", f"Bearer {KEY}"],
        ["Bearer ké" + "y" * 40],
    ],
)
def test_whatever_is_no_known_key_stays_out_and_is_not_repeated(house, came):
    gate = house.gate()
    with pytest.raises(UnauthenticatedError) as refused:
        gate.identify(came, Scope.MODELS)
    assert KEY not in refused.value.message
    with pytest.raises(UnauthenticatedError):
        gate.admit(Scope.MODELS)


def test_a_wrong_key_after_a_good_one_does_not_inherit_its_rights(house):
    gate = house.gate()
    ask(gate)
    with pytest.raises(UnauthenticatedError):
        ask(gate, key="fer_" + "x" * 43)
    with pytest.raises(UnauthenticatedError):
        gate.admit(Scope.ANALYZE)


def test_a_door_that_forgot_to_ask_is_closed(house):
    with pytest.raises(UnauthenticatedError, match="got none"):
        house.gate().admit(Scope.MODELS)


def test_a_key_is_good_until_the_day_before_it_expires(house):
    house.write(expires="2026-11-26")
    ask(house.gate())
    house.write(expires="2026-11-25")
    with pytest.raises(UnauthenticatedError, match="expired on 2026-11-25"):
        ask(house.gate())


def test_another_scope_is_forbidden(house):
    house.write(scopes=["models"])
    gate = house.gate()
    ask(gate, scope=Scope.MODELS)
    with pytest.raises(ForbiddenError, match="expected a key for analyze, got one for models"):
        ask(gate)


@pytest.mark.parametrize("purpose", Purpose)
def test_work_and_education_are_refused_and_nothing_else(house, purpose):
    house.write(purpose=purpose)
    gate = house.gate()
    if purpose in GUARDED:
        with pytest.raises(PurposeRefusedError, match=r"5\(1\)\(f\)"):
            ask(gate)
        ask(gate, scope=Scope.MODELS)
    else:
        ask(gate)
    assert {Purpose.WORKPLACE, Purpose.EDUCATION} == GUARDED


@pytest.mark.parametrize("exemption", Exemption)
def test_medical_and_safety_reasons_are_let_through(house, exemption):
    house.write(purpose="workplace", exemption=exemption)
    ask(house.gate())


def test_the_guard_can_be_switched_off(house):
    house.write(purpose="workplace")
    ask(house.gate(purpose_guard=False))


def test_faces_of_a_minute_may_come_at_once_and_then_as_they_come_free(house):
    house.write(faces_per_minute=60)
    gate = house.gate()
    ask(gate)
    gate.charge(59)
    gate.admit(Scope.ANALYZE)
    gate.charge(3)
    with pytest.raises(RateLimitedError, match="60 faces a minute") as refused:
        gate.admit(Scope.ANALYZE)
    assert refused.value.retry_after_s == pytest.approx(3)
    gate.admit(Scope.MODELS)
    house.now_s += 3.01
    gate.admit(Scope.ANALYZE)


def test_waiting_longer_than_a_minute_saves_nothing_up(house):
    house.write(faces_per_minute=10)
    gate = house.gate()
    ask(gate)
    house.now_s += 3600
    gate.charge(10)
    with pytest.raises(RateLimitedError):
        gate.admit(Scope.ANALYZE)


def test_a_crowd_that_was_not_foreseen_is_paid_off_before_the_next_photo(house):
    house.write(faces_per_minute=60)
    gate = house.gate()
    ask(gate)
    gate.charge(600)
    with pytest.raises(RateLimitedError) as refused:
        ask(gate)
    assert refused.value.retry_after_s == 60


def test_a_key_that_is_taken_out_of_the_file_is_out_within_a_second(house):
    gate = house.gate()
    ask(gate)
    house.write(name="another", sha256=sha256_of("another"))
    house.now_s += 1.1
    with pytest.raises(UnauthenticatedError):
        ask(gate)


def test_a_broken_file_leaves_the_old_keys_in_force_and_is_told(house, caplog):
    gate = house.gate()
    house.write(purpose="mischief")
    house.now_s += 1.1
    ask(gate)
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "key.0.purpose" in record.getMessage()
    house.file.unlink()
    house.now_s += 1.1
    ask(gate)


def test_the_audit_says_who_asked_for_what_kind_of_thing_and_nothing_else(house, caplog):
    caplog.set_level(logging.INFO, "ferserve.audit")
    gate = house.gate()
    ask(gate)
    with pytest.raises(UnauthenticatedError):
        gate.identify(["Bearer " + "x" * 43], Scope.MODELS)
    said = [
        {name: vars(record).get(name) for name in ("key", "purpose", "scope", "outcome")} for record in caplog.records
    ]
    assert said == [
        {"key": "kiosk", "purpose": "retail", "scope": "analyze", "outcome": "admitted"},
        {"key": "(none)", "purpose": None, "scope": "models", "outcome": "UNAUTHENTICATED"},
    ]
    assert not any(KEY in str(vars(record)) or "xxxx" in str(vars(record)) for record in caplog.records)


def test_the_audit_can_be_switched_off(house, caplog):
    caplog.set_level(logging.INFO, "ferserve.audit")
    ask(house.gate(audit=False))
    assert caplog.records == []


def test_without_a_file_everybody_may(house):
    assert gate_of(AccessConfig(), lambda: 0.0) is OPEN
    OPEN.identify([], Scope.ANALYZE)
    OPEN.admit(Scope.ANALYZE)
    OPEN.charge(10)
    assert isinstance(gate_of(AccessConfig(keys_file=house.file), lambda: 0.0), KeyGate)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[key]]\nname = 'a'\n", "key.0.sha256: Field required"),
        ("[[key]]\nname = 'a'\nsha256 = 'ab'\npurpose = 'retail'\n", "key.0.sha256"),
        ("[[keys]]\nname = 'a'\n", "keys: Extra inputs"),
        ("not toml", "expected TOML"),
    ],
)
def test_a_wrong_file_is_named_with_the_entry(tmp_path, text, said):
    file = tmp_path / "keys.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as wrong:
        read_keys(file)
    assert said in wrong.value.message
    assert "keys.toml" in wrong.value.message
    with pytest.raises(ConfigError, match="No such file"):
        read_keys(tmp_path / "none.toml")


def test_an_exemption_is_only_for_what_is_guarded(house):
    house.write(purpose="retail", exemption="safety")
    with pytest.raises(ConfigError, match="exemption is for the purposes education, workplace"):
        house.gate()


def test_a_name_or_a_key_cannot_stand_twice(house):
    house.file.write_text(house.file.read_text() * 2)
    with pytest.raises(ConfigError, match="different name for each key"):
        house.gate()


def test_new_keys_differ_and_are_known_by_their_hash():
    (first, first_sha256), (second, _) = new_key(), new_key()
    assert first != second
    assert first_sha256 == sha256_of(first)
    assert first.startswith("fer_")
    assert len(first) == 47
