"""What the project measures: one module a benchmark, one results file each."""
