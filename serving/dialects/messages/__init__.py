"""The dialect of Anthropic Messages: ``POST /v1/messages``. Entry point: :mod:`serving.dialects.messages.dialect`."""
