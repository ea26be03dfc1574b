"""The leasing service: which node may work on which shard, for how long, under which fencing token."""
