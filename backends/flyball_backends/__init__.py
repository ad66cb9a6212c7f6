"""Runtimes behind one contract; each opens artifacts on its accelerators."""
