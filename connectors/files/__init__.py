"""Recorded traffic as a source: files of JSON lines, CSV or Parquet, and folders of them."""
