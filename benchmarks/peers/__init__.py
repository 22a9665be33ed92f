"""Compares this flow with other stream processors for Python: `python -m benchmarks.peers`."""
