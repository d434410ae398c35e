"""Tests of the benchmarks, file by file."""
