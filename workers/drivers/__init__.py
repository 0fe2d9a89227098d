"""One driver for each API of an Executor, over one transport."""
