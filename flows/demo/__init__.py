"""`python -m flows.demo`: runs the flow on simulated services and shows its alerts as they come."""
