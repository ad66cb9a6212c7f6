"""Numeric kernels around a model run: the NumPy reference."""
