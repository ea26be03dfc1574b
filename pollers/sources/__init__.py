"""One module for each kind of event source. Sources do not know each other."""
