"""Speed beside the peers': `make bench`; see docs/performance.md."""
