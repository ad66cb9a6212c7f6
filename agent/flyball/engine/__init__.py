"""Running ladders: workers, shared-memory slots, runner, switch."""
