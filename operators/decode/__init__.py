"""From records to columns: one file per format, found by name in `registry`."""
