"""The stores of the state manager on Redis: keys, Lua scripts and the adapter that calls them."""
