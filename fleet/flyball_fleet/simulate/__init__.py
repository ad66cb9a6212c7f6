"""Simulated devices: the protocol's own code, and a machine that is made up."""
