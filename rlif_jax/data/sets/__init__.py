"""Problem sets by name, built once and read by index.

- named: a set by its name; humaneval, livecodebench, starter/: single sets
- release_files: where a published set's files come from
- content: what a set is built from; builder: builds it; stored: opens it
"""
