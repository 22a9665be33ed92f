"""A simulated fleet of LLM services: its calls, its behaviour, and its incidents."""
