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
  const { name, hostname, port } = checked(options)
  const flags = ["local", "start", "--json", "--until-stdin-closes"]
  if (name !== undefined) flags.push(`--name=${name}`)
  if (hostname !== undefined) flags.push(`--hostname=${hostname}`)
  if (port !== undefined) flags.push(`--port=${port}`)
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

/** The options, if they are some. A misspelt one would be a server that is not the one wanted. */
function checked(options) {
  if (typeof options !== "object" || options === null || Array.isArray(options)) {
    throw new TypeError("options must be an object: { name, hostname, port }")
  }
  for (const key of Object.keys(options)) {
    if (!["name", "hostname", "port"].includes(key)) {
      throw new TypeError(`unknown option ${JSON.stringify(key)}: there are name, hostname and port`)
    }
  }
  for (const key of ["name", "hostname"]) {
    const value = options[key]
    if (value !== undefined && typeof value !== "string") {
      throw new TypeError(`${key} must be a string, not ${value === null ? "null" : typeof value}`)
    }
  }
  const { port } = options
  if (port !== undefined && !(Number.isInteger(port) && port >= 0 && port <= 65535)) {
    throw new TypeError(`port must be a whole number from 0 to 65535, not ${String(port)}`)
  }
  return options
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
      const why = error?.message ?? (explained(complaint) || `it ended with ${signal ?? code}`)
      reject(new Error(`the local Durable Streams server did not start: ${why}`))
    })
  })
}

/** What the server complains of: the last line is JSON, if it has come that far. */
function explained(complaint) {
  const last = complaint.trim().split("\n").pop() ?? ""
  try {
    const { message, advice } = JSON.parse(last).error
    return advice ? `${message} (${advice})` : message
  } catch {
    return complaint.trim()
  }
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

  /**
   * Resolves when the server has ended, for whatever reason. Who asks for it waits: this process
   * goes on until then.
   */
  get closed() {
    this.#child.ref()
    this.#child.stdout.ref?.()
    return this.#ended.then(() => {})
  }

  /** Stops the server and resolves when it has; the next one of its name can start then. */
  async close() {
    this.#child.ref()
    this.#child.stdin.end()
    await this.#ended
  }
}
