"""The benchmark that ``python scripts/bench`` runs: every row is two sides that do the same work, ours and a yardstick.

Each side runs in a process of its own (:mod:`bench.child`); the runner (:mod:`bench.runner`) lets the two take turns.
The rows stand in :mod:`bench.catalogue`, by topic.
"""
