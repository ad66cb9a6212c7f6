"""The other end of the uplink: the fleet server, the console and simulated devices."""
