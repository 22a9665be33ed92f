"""The wiring, which turns settings into a dataflow, and the commands around it."""

__version__ = "0.1.0"
