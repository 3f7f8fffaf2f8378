// A worker over `walsvc serve --data data --unix data.sock --redis 127.0.0.1:6380`, with ioredis:
// npm install; node orders.mjs [PORT]
import Redis from "ioredis";

const log = new Redis({ port: Number(process.argv[2] ?? 6380) });
for (const item of ["book", "lamp", "chair"]) {
  await log.xadd("orders", "*", "item", item); // on stable storage when it returns
}
try {
  await log.xgroup("CREATE", "orders", "workers", "0");
} catch (error) {
  if (!error.message.startsWith("BUSYGROUP")) throw error; // it is there since an earlier run
}
for (;;) {
  const read = await log.xreadgroup("GROUP", "workers", "worker-1", "COUNT", 2, "STREAMS", "orders", ">");
  if (read === null) break;
  for (const [entry, fields] of read[0][1]) {
    console.log("done", fields[1]);
    await log.xack("orders", "workers", entry);
  }
}
console.log("pending", (await log.xpending("orders", "workers"))[0]);
await log.quit();
