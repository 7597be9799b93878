"""The only shared I/O: parameters, files, progress, endpoints."""
