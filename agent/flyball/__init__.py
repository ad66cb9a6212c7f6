"""The daemon that serves ladders and keeps the machine inside its limits."""

__version__ = "0.1.0"
