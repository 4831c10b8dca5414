"""The places files live in; `open.open_store` picks one by its URL."""
