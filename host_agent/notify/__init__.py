"""Who is told: channels, prompts, delivery and the replies that come back."""
