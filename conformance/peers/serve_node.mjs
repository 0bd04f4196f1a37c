// The reference Node server with its files: node serve_node.mjs PORT DIRECTORY
//
// Started from the directory that its packages are installed in. All other settings are its own.

import { createRequire } from "node:module"
import { join } from "node:path"
import { pathToFileURL } from "node:url"

const [port, dataDir] = process.argv.slice(2)
const require = createRequire(join(process.cwd(), "package.json"))
const { DurableStreamTestServer } = await import(
  pathToFileURL(require.resolve("@durable-streams/server")).href
)

const server = new DurableStreamTestServer({ host: "127.0.0.1", port: Number(port), dataDir })
await server.start()
process.on("SIGTERM", () => server.stop().then(() => process.exit(0)))
