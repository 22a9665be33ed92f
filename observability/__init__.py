"""The flow as seen from outside: rules for Prometheus, dashboards for Grafana."""
