"""Everything that does I/O: readers of telemetry, writers of rows, alerts and dead letters."""
