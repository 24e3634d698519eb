"""What teachers thought of every position, in some thirty bytes on the disk; no teacher is in memory then."""
