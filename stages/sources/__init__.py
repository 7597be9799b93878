"""One module a dump format: raw files in, candidate rows out."""
