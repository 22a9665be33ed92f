"""What LLM-Sentinel costs, measured: each command alternates its contestants in one run and reports ratios."""
