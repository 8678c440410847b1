"""OpenAI Chat Completions. Nothing is imported here; its row is in :mod:`serving.dialects.chat.dialect`."""
