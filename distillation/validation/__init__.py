"""Whether a student may replace its teacher: tests with a known error rate, probes, the gate, the readiness score."""
