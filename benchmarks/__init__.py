"""Speed beside the peers': `python -m benchmarks.attacks`; see docs/benchmarks.md."""
