"""The metrics of the flow itself."""
