"""Tests of `client/` against a small HTTP server that speaks the service's contract."""
