"""`python -m flows.cluster`: the processes of one flow, which end together and start together."""
