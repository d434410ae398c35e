"""Tests of the kinds of autoencoder."""
