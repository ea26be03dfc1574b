"""Other ways to do a node's work, one folder each, as their users write them. `benchmarks.peering` runs them."""
