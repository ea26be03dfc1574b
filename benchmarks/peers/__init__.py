"""Other ways to do a node's work, one folder each, written as their users write them. `benchmarks.peering` runs them."""
