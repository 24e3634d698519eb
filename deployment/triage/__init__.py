"""Which way to a better model: prompt, retrieval, a bigger model, fine-tuning, distillation, merging, or the forge."""
