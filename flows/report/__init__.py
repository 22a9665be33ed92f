"""`python -m flows.report`: what a run found, on the terminal and as a page."""
