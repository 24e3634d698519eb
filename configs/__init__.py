"""The shipped YAML configs, as package data."""
