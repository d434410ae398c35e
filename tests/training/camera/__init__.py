"""Tests of learning a camera's noise."""
