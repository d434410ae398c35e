"""The service, over HTTP and part by part."""
