"""Panes: events folded into them, merged by shard, admitted, closed by the watermark, rolled up."""
