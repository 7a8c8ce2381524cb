"""What this project asks of itself beside the papers."""

from ferserve.training.ledger.claim import NOT_TRAINED, Claim, OnSplit, Served


def claims() -> tuple[Claim, ...]:
    """In the order of the page."""
    return (
        Claim(
            system="Beyond", what="FER-2013 private test, the small model that ships", where="at least", value=72.0,
            evidence=OnSplit(archives=("mobilenet",), split="private"), why_not="PrivateTest is kept aside",
        ),
        Claim(
            system="Beyond", what="FER-2013 private test, the best archive", where="at least", value=75.0,
            why_not="PrivateTest is kept aside",
        ),
        Claim(
            system="Beyond", what="FERPlus majority, seven classes, public test", where="at least", value=88.0,
            evidence=OnSplit(archives=("mobilenet-ferplus",), labels="ferplus"),
            why_not="not evaluated yet: `ferserve evaluate RUN --data fer2013=DIR --labels ferplus --result FILE`",
            note="epoch 4 of 15 on the votes, from the default's weights rounded to 8 bits",
        ),
        Claim(
            system="Beyond", what="expected calibration error, public test", where="at most", value=3.0, at_most=True,
            evidence=OnSplit(archives=("mobilenet",), figure="ece"), why_not=NOT_TRAINED,
        ),
        Claim(
            system="Beyond", what="served: decode, detect, align, score, of the faces found", where="beside 67.03",
            value=67.03, evidence=Served(), why_not="not evaluated yet",
            note="S4's own cropped figure stands in for a claim: no paper reports a served one",
        ),
    )  # fmt: skip
