"""The parts of the chaos campaign."""
