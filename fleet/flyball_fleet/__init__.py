"""The other end of the uplink: console and fleet server (from the uplink part on)."""
