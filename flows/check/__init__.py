"""`python -m flows.check`: whether the settings are right, and where each value comes from."""
