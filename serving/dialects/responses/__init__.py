"""OpenAI Responses. Nothing is imported here; the row of functions is in :mod:`serving.dialects.responses.dialect`."""
