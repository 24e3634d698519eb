"""An agent behind OpenAI's HTTP interface: requests, replies, and the thread that answers one at a time."""
