"""The parts that live as long as the process: start and end, signals, logs, progress, heartbeats."""
