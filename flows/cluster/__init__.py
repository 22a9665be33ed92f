"""`python -m flows.cluster`: processes that fall and rise together."""
