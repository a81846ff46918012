"""The ways to reach people: each channel behind one port, all of them behind one outbox."""
