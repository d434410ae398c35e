"""Tests of training.compare."""
