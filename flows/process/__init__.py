"""What belongs to the process, not to the dataflow."""
