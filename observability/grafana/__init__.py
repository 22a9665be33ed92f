"""The dashboards as code; `python -m observability.grafana.make` writes them as JSON."""
