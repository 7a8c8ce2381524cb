"""S1: Net B with DAL and Softmax-MSE."""

from ferserve.training.ledger.claim import NO_SFEW, NOT_TRAINED, TAUGHT, Claim, OnSplit


def claims() -> tuple[Claim, ...]:
    """In the order of the page."""
    variants = (
        ("Net B", ("net-b",), 60.91, 46.52),
        ("Net B + DAL", ("net-b-dal",), 58.33, 45.64),
        ("Net B + DAL + Softmax-MSE", ("net-b-dal-mse",), 59.15, 48.51),
    )
    mse = "Softmax-MSE's gradient is defined as cross-entropy's, so its training path equals cross-entropy's"
    on_fer = tuple(
        Claim(
            system="S1", what=f"{name}, FER-2013", where="Table 2", value=fer, evidence=OnSplit(archives=archives),
            why_not=NOT_TRAINED, note=f"{TAUGHT}; {mse}" if "MSE" in name else TAUGHT,
        )
        for name, archives, fer, _ in variants
    )  # fmt: skip
    on_sfew = tuple(
        Claim(system="S1", what=f"{name}, SFEW", where="Table 2", value=sfew, why_not=NO_SFEW)
        for name, _, _, sfew in variants
    )
    return on_fer + on_sfew
