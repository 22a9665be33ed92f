"""`python -m flows.backtest`: the flow of production on recorded events, and how good it was."""
