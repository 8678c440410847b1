"""The database of the gateway: one writer for everything that is kept."""
