"""`python -m flows.report`: the findings of a run, on the terminal and as a page."""
