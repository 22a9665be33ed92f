"""`python -m flows.backtest`: runs the flow of production on recorded events and scores its alerts."""
