"""Tests of the sections of the denoising benchmark, file by file."""
