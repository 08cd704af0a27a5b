"""Benchmarks on a real Kubernetes; `python -m tests.bench.k8s`."""
