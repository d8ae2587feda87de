"""What exists before Hilo, brought into the log: thread files, guest memory, exports (A17).

`legacy_json` and `whatsapp_txt` read files into `records` and know nothing of the log; `importer`
makes events of them, each with its original time and an idempotency key, so that a file may be
imported again, or a later and longer export of the same chat.
"""
