"""Four dialects of LLM APIs and a neutral form between them. Pure: no I/O, no clock. Nothing is imported here."""
