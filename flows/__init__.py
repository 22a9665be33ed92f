"""The wiring: settings in, a dataflow out, and the commands around it."""

__version__ = "0.1.0"
