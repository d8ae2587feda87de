"""`hilo demo`: a whole bot, killed and started again while people write, judged from outside.

| file | what is in it |
|---|---|
| `play` | the demo from its first process to its verdict |
| `traffic`, `sending` | what people do, planned from a seed; and doing it, over HTTP |
| `world` | all that is started: |
| `outside`, `server`, `database` | WhatsApp and OpenAI; one `hilo serve`; a PostgreSQL |
| `postgres_home` | where a private PostgreSQL lives |
| `processes`, `leash` | children that never outlive the demo |
| `kills` | who is killed with -9, when, and who comes back |
| `accounts`, `evidence` | what each side says happened: phones, OpenAI, the log, the files |
| `judge` | the promises: pure functions that find what was broken |
| `story` | telling it to a person, or to a program |
"""

from app.demo.play import run

__all__ = ["run"]
