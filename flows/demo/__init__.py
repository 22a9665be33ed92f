"""`python -m flows.demo`: simulated services, the flow on them, and its alerts as they come."""
