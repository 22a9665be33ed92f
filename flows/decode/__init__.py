"""`python -m flows.decode`: what the flow makes of a payload."""
