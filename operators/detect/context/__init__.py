"""Knowledge of a shard's series that detectors and alerts share: mix, shares, season, quantiles, rules of means."""
