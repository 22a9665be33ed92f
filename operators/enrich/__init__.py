"""What events lack and can be known: names of models, prices."""
