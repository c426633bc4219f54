"""Which layer needs how many bits: damage by layer, and the best assignment under a budget."""
