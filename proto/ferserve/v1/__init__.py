"""Generated protocol buffers of the public API; regenerate with `make proto`."""
