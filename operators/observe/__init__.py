"""What the flow says of itself: its metrics and its spans."""
