"""Replay: traces of load, heat and loss, a simulated machine that meets them, and the policies that are compared."""
