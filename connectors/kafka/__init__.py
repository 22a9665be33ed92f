"""Kafka: readers of topics, and writers that put each record into its topic exactly once."""
