"""One driver for each API that an Executor may have, over one transport."""
