"""What `esmd demo` adds to a node: a shop that produces orders, functions that take them, and a view of it all.

The node itself runs as `esmd run` runs it. `play` is the evening's programme; `orders`, `behaviour`, `latency`,
`snapshot`, `added`, `view` and `summary` are pure.
"""
