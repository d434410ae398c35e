"""Servers under load, side by side: the service, others with the same model, and the engines without a server."""
