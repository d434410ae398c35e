"""Tests of runtime, file by file."""
