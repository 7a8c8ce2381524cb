"""Workers run one batch of crops through a model; see `protocol`."""
