"""What a student may minimise: pure functions of logits, and sums over slices of hidden states. Nats throughout."""
