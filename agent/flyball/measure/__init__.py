"""Rungs measured on this machine."""
