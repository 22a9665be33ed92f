"""The detectors, one a file."""
