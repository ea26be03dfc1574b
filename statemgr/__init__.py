"""The state manager: which mappings exist, which shards they have, and how far each shard got."""
