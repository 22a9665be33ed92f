"""This flow beside other stream processors for Python: `python -m benchmarks.peers`."""
