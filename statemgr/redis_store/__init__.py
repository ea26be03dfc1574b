"""The fleet's shared memory in Redis: `RedisStore` is a `statemgr.stores.Store`.

`address` reads URLs, `connect` opens clients, `keys` names every key, `scripts/` decides inside Redis, `codec` turns
values into bytes and back, `store` puts them together.
"""
