// Fastify + better-sqlite3 as their documentation shows: one durable insert a request.
// node fastify.mjs FILE: prints its port, serves until its standard input ends.
import Fastify from "fastify";
import Database from "better-sqlite3";

const db = new Database(process.argv[2]);
db.pragma("journal_mode = WAL");
db.pragma("synchronous = FULL");
db.exec("CREATE TABLE IF NOT EXISTS messages (id TEXT PRIMARY KEY, chat TEXT, at INTEGER, body TEXT)");
const insert = db.prepare("INSERT OR IGNORE INTO messages VALUES (?, ?, ?, ?)");

const app = Fastify();
app.post("/webhooks/whapi", async (request) => {
  const [message] = request.body.messages;
  insert.run(message.id, message.chat_id, message.timestamp, message.text.body);
  return { received: 1 };
});
await app.listen({ port: 0, host: "127.0.0.1" });
console.log(app.server.address().port);
process.stdin.on("end", () => process.exit(0)).resume();
