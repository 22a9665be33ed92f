"""OTLP as OpenTelemetry's SDKs and its Collector write it: spans and logs that tell of calls."""
