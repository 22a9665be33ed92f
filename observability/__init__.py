"""What is seen of the flow from outside: rules for Prometheus, dashboards for Grafana."""
