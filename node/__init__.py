"""One running node: commands, wiring, HTTP surface, telemetry and embedded servers."""
