"""The service as it is started by hand."""
