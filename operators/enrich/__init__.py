"""Values that events lack but that can be known: families of models, speed, cost."""
