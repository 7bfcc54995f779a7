"""Numeric kernels without parameters."""
