"""What `forge doctor` looks at, one file a topic. Only the standard library is imported at the top: it must start."""
