"""The reproduction ledger: each paper's claims against ours, from result files alone."""
