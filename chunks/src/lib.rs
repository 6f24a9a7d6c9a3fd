//! The memory tier and the reactive SSD tiers of an edge: chunks by key, checked whenever a disk gave them.
