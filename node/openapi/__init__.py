"""The OpenAPI document of a node's HTTP surface: which requests there are, and what they are answered with."""
