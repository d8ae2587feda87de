"""The demo and the chat, as people run them; and the demo's judge, who must be able to say no."""
