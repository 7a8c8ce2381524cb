import pytest

from ferserve.serving.cli import main


@pytest.fixture
def stress(capfd):
    def run(*arguments: str):
        with pytest.raises(SystemExit) as left:
            main(["stress", *arguments])
        out, err = capfd.readouterr()
        return left.value.code, out, " ".join(err.split())

    return run


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["drain", "--target", "127.0.0.1:1"], "--target: expected none with drain"),
        (["overload", "--target", "127.0.0.1:1", "--model", "x.mar"], "--target: expected none with --model"),
        (["overload", "--seconds", "1"], "--seconds"),
        (["overload", "absent.jpg"], "does not exist"),
        (["everything"], "everything"),
    ],
)
def test_a_wrong_call_says_so_before_anything_is_measured(stress, arguments, message):
    code, out, err = stress(*arguments)
    assert (code, out) == (2, "")
    assert message in err


def test_a_gateway_that_cannot_start_says_why(stress):
    code, out, err = stress("overload", "--model", "absent.mar")
    assert (code, out) == (1, "")
    assert "the gateway ended with 1 before it was ready" in err
    assert "absent.mar" in err
