"""The pollers: read a source, filter, batch, invoke, retry, and move the checkpoint."""
