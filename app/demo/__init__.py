"""`hilo demo`: a whole bot, killed half-way and started again, and a judge who looks from outside.

| file | what is in it |
|---|---|
| `play` | the demo from its first process to its verdict |
| `traffic`, `sending` | what people do, planned from a seed; and doing it, over HTTP |
| `world`, `leash` | the processes: started, killed, never outliving the demo |
| `accounts`, `evidence` | what each side says happened: phones, OpenAI, the log, the files |
| `judge` | the promises: pure functions that find what was broken |
| `story` | telling it to a person, or to a program |
"""

from app.demo.play import run

__all__ = ["run"]
