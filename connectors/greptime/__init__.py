"""GreptimeDB as a sink."""
