"""One driver for each API that an Executor may speak, over one transport."""
