"""Tests of the lecture, part by part."""
