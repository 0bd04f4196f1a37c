#!/usr/bin/env node
// A local server as a process of its own.
//
//   node daemon.js [NAME] [--name NAME] [--hostname ADDRESS] [--port PORT]
//
// Forked, it sends {type: "ready", exports} and ends when its parent disconnects; otherwise it
// prints one line of JSON. Either way SIGINT and SIGTERM end it.
import { parseArgs } from "node:util"
import { startLocalDurableStreamsServer } from "./index.js"

const options = { name: { type: "string" }, hostname: { type: "string" }, port: { type: "string" } }

let server
let ending

// Once: a signal and a disconnect may come together.
const end = (code) => {
  ending ??= (async () => {
    await server?.close()
    process.exit(code)
  })()
}

const isForked = typeof process.send === "function"
// Before the start, so that none is missed meanwhile.
let wanted = true
const leave = () => {
  wanted = false
  if (server) end(0)
}
process.on("SIGINT", leave)
process.on("SIGTERM", leave)
if (isForked) process.on("disconnect", leave)

try {
  const { values, positionals } = parseArgs({ options, allowPositionals: true })
  if (positionals.length > (values.name === undefined ? 1 : 0)) {
    throw new Error(`one NAME at most: ${positionals.join(" ")}`)
  }
  const { hostname, name = positionals[0] } = values
  const port = values.port === undefined ? undefined : Number(values.port || NaN)
  server = await startLocalDurableStreamsServer({ name, hostname, port })
} catch (error) {
  console.error(error.message)
  process.exit(1)
}
// A server that ended by itself leaves nothing to stay for.
server.closed.then(() => process.exit(ending ? 0 : 1))
if (!wanted) {
  end(0)
} else if (isForked) {
  process.send({ type: "ready", exports: server.exports }, (error) => error && end(0))
} else {
  console.log(JSON.stringify(server.exports))
}
// Not forked, nothing else keeps this process.
const keep = setInterval(() => {}, 1 << 30)
process.on("exit", () => clearInterval(keep))
