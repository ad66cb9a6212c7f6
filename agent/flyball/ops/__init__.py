"""Service manager notifications, logging, devices."""
