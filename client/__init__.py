"""Callers of the service over HTTP; nothing here imports the rest of the project."""
