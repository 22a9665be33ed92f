"""`python -m flows.check`: checks the settings, and shows the origin of each value."""
