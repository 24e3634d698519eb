"""The atlas: open-weight models as the physics sees them, read from `config.json` or from the shipped catalogue."""
