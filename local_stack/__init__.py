"""Development tools: what stands in, on loopback, for accounts you don't have yet."""
