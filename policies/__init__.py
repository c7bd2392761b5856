"""What should happen: decisions as pure functions of values and of a `now` that is handed in.

The modules here know no files, threads, clocks, SQLite or torch; the mechanism that trains and
measures is apart, in `policies.editing`.
"""
