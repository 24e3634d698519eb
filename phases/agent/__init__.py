"""The agent at work: tools that run, memory that lasts, and the conversation that uses them."""
