"""A simulated fleet of LLM services: who calls what, how it behaves, and what goes wrong when."""
