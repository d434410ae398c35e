"""Tests of the drawn inspection sets."""
