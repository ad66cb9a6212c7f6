"""Deciding which rung runs, and explaining why."""
