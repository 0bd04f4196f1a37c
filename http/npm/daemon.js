#!/usr/bin/env node
// A local server as a process of its own: `USAGE` says how.
import { parseArgs } from "node:util"
import { startLocalDurableStreamsServer } from "./index.js"

const USAGE = `A local Durable Streams server that runs until it is told to end

Usage: streamweir-local [NAME] [OPTIONS]

  NAME                 Name of the server: letters, digits, '.', '_' and '-' [default: default]

Options:
  --name NAME          The same
  --hostname ADDRESS   Loopback address to listen on [default: 127.0.0.1]
  --port PORT          Port to listen on, 0 to 65535; 0 takes a free one [default: 0]
  -h, --help           Print this

Once it serves it prints one line of JSON. Forked, it sends {type: "ready", exports} to its parent
instead, and ends when that disconnects. SIGINT and SIGTERM end it.
Ends with 0 if it was told to end, with 1 if it did not start or the server ended by itself.`

const options = {
  name: { type: "string" },
  hostname: { type: "string" },
  port: { type: "string" },
  help: { type: "boolean", short: "h" },
}

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
  if (values.help) {
    console.log(USAGE)
    process.exit(0)
  }
  if (positionals.length > (values.name === undefined ? 1 : 0)) {
    throw new Error(`one NAME at most: ${positionals.join(" ")}`)
  }
  const { hostname, name = positionals[0] } = values
  // What is no number is refused by its own name.
  const port = /^\d+$/.test(values.port ?? "") ? Number(values.port) : values.port
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
