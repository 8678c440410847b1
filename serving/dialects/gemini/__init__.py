"""The Gemini API: ``generateContent`` and ``streamGenerateContent``. Nothing is imported here."""
