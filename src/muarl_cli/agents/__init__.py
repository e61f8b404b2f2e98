"""Who plays the assistant: the policy (an engine behind a chat format), scripted agents, OpenAI-compatible models."""
