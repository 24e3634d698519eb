"""The tools that ship with the forge: one file each, with its JSON schema."""
