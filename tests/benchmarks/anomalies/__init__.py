"""Tests of the sections of the anomaly benchmark, file by file."""
