// A program with a local server that waits for its end, or with an argument does not.
import { startLocalDurableStreamsServer } from "../../http/npm/index.js"

const server = await startLocalDurableStreamsServer({ name: `waits-${process.pid}` })
console.log(JSON.stringify(server.exports))
if (process.argv.length === 2) {
  await server.closed
  console.log("it has ended")
}
