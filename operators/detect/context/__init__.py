"""What a shard's series are usually like beside their cells: mix, shares, season, quantiles."""
