"""The pure part of LLM-Sentinel: no I/O, no clock, no environment, and of Bytewax only `steps`."""
