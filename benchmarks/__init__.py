"""Measures the costs of LLM-Sentinel: each command alternates its contestants in one run and reports ratios."""
