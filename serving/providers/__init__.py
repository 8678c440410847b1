"""What Turnout knows of providers: their I/O, their refusals, their prices. Nothing is imported here."""
