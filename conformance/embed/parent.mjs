// A program with a local server, which prints where that is and then waits to be killed.
import { startLocalDurableStreamsServer } from "../../http/npm/index.js"

const server = await startLocalDurableStreamsServer({ name: "orphan" })
console.log(JSON.stringify(server.exports))
setInterval(() => {}, 1 << 30)
