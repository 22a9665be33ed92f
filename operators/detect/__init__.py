"""The detectors, their contract and registry, and the monitor that runs them over a shard."""
