"""How a batch reaches a function: targets, the client that calls them, and the classification of what came back."""
