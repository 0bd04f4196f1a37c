// A local server as a process beside this one, which ends with it.
//
// The server is told to stop when its standard input closes: the system closes that pipe when
// this process ends, however it does, so no server is left over.
import { spawn } from "node:child_process"
import { findBinary } from "./binary.js"

/** Bytes of what the server writes to standard error that an error shows. */
const COMPLAINT_LENGTH_MAX = 4096

/**
 * Starts a server, or rejects with what is in the way.
 * @param {import("./index.js").LocalServerOptions} [options]
 * @returns {Promise<import("./index.js").LocalServer>}
 */
export async function startLocalDurableStreamsServer(options = {}) {
  const { name, hostname, port } = options
  const flags = ["local", "start", "--json", "--until-stdin-closes"]
  if (name !== undefined) flags.push("--name", String(name))
  if (hostname !== undefined) flags.push("--hostname", String(hostname))
  if (port !== undefined) flags.push("--port", String(port))
  const child = spawn(findBinary(), flags, { stdio: ["pipe", "pipe", "pipe"] })
  const ended = new Promise((resolve) => {
    child.once("error", (error) => resolve({ error }))
    child.once("close", (code, signal) => resolve({ code, signal }))
  })
  // A server that has gone does not read what it is told.
  child.stdin.on("error", () => {})
  const exports = await announced(child, ended)
  return new LocalServer(child, ended, exports)
}

/** What the server says of itself in its first line. */
function announced(child, ended) {
  return new Promise((resolve, reject) => {
    let line = ""
    let complaint = ""
    child.stdout.setEncoding("utf8")
    child.stderr.setEncoding("utf8")
    child.stderr.on("data", (text) => {
      complaint = (complaint + text).slice(-COMPLAINT_LENGTH_MAX)
      if (process.env.WEIR_LOG_STDERR) process.stderr.write(text)
    })
    child.stdout.on("data", (text) => {
      line += text
      const end = line.indexOf("\n")
      if (end < 0) return
      try {
        resolve(JSON.parse(line.slice(0, end)))
      } catch (error) {
        reject(error)
      }
      child.stdout.removeAllListeners("data")
      child.stdout.resume()
    })
    ended.then(({ error, code, signal }) => {
      const why = error?.message ?? (complaint.trim() || `it ended with ${signal ?? code}`)
      reject(new Error(`the local Durable Streams server did not start: ${why}`))
    })
  })
}

class LocalServer {
  #child
  #ended

  constructor(child, ended, exports) {
    this.#child = child
    this.#ended = ended
    this.exports = exports
    // The server alone is no reason for this process to go on.
    child.unref()
    for (const pipe of [child.stdin, child.stdout, child.stderr]) pipe.unref?.()
  }

  get name() {
    return this.exports.name
  }

  get pid() {
    return this.exports.pid
  }

  /** Resolves when the server has ended, for whatever reason. */
  get closed() {
    return this.#ended.then(() => {})
  }

  /** Stops the server and resolves when it has; the next one of its name can start then. */
  async close() {
    this.#child.ref()
    this.#child.stdin.end()
    await this.#ended
  }
}
