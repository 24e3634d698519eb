"""What was measured after a deployment: kept, compared with what was predicted, and handed to the calibration."""
