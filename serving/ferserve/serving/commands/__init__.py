"""One module a verb; each imports what is heavy inside its function, so that `ferserve --help` stays quick."""
