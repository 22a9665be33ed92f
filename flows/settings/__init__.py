"""Settings: their tree, the layers they come from, their schema and their reference."""
