// A local server as a process beside this one, which ends with it.
//
// The server is told to stop when its standard input closes: the system closes that pipe when
// this process ends, however it does, so no server is left over.
import { spawn } from "node:child_process"
import { readFileSync } from "node:fs"
import { isIPv4, isIPv6 } from "node:net"
import { findBinary } from "./binary.js"

/** Characters of what the server writes to standard error that an error shows. */
const COMPLAINT_LENGTH_MAX = 4096
/** Characters of the line in which a server says where it is: two paths fit many times. */
const LINE_LENGTH_MAX = 65_536
/** Characters of somebody else's text that an error shows. */
const QUOTE_LENGTH_MAX = 200
/** How long a program may take to say where it serves, unless WEIR_START_SECONDS says otherwise. */
const START_SECONDS = 60
/** Characters of a name. This and what it is made of is what the server takes. */
const NAME_LENGTH_MAX = 128

/**
 * Starts a server, or rejects with what is in the way.
 * @param {import("./index.js").LocalServerOptions} [options]
 * @returns {Promise<import("./index.js").LocalServer>}
 */
export async function startLocalDurableStreamsServer(options = {}) {
  const { name, hostname, port } = checked(options)
  const seconds = startSeconds()
  const binary = findBinary()
  const flags = ["local", "start", "--json", "--until-stdin-closes"]
  if (name !== undefined) flags.push(`--name=${name}`)
  if (hostname !== undefined) flags.push(`--hostname=${hostname}`)
  if (port !== undefined) flags.push(`--port=${port}`)
  const child = spawn(binary, flags, { stdio: ["pipe", "pipe", "pipe"] })
  const ended = new Promise((resolve) => {
    child.once("error", (error) => resolve({ error }))
    child.once("close", (code, signal) => resolve({ code, signal }))
  })
  // A server that has gone does not read what it is told.
  child.stdin.on("error", () => {})
  const { exports, version } = await announced(child, ended, binary, seconds)
  tell(binary, version)
  return new LocalServer(child, ended, exports)
}

/**
 * Says which binary serves to whoever reads its log, and to everybody if it is of another version
 * than this package.
 */
function tell(binary, version = "of an unknown version") {
  if (process.env.WEIR_LOG_STDERR) {
    process.stderr.write(`streamweir-local: the server is ${binary}, weir ${version}\n`)
  }
  const ours = JSON.parse(readFileSync(new URL("./package.json", import.meta.url), "utf8")).version
  if (version !== ours) {
    process.emitWarning(
      `${binary} is weir ${version}, and this package is for ${ours}: they may not fit`,
      "WeirVersionWarning"
    )
  }
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
  return { name: checkedName(options.name), hostname: checkedHostname(options.hostname), port }
}

/** The name without the spaces around it. Nothing at all stands for the server's default. */
function checkedName(text) {
  // The white space of the server's own rule: that of `trim` is another.
  const name = text?.replace(/^\p{White_Space}+|\p{White_Space}+$/gu, "")
  if (!name) return undefined
  const refuse = (but) => {
    throw new TypeError(`invalid server name ${quoted(name)}: use letters, digits, '.', '_' and '-'${but}`)
  }
  if (!/^[A-Za-z0-9._-]*$/.test(name)) refuse("")
  if (name === "." || name === "..") refuse(", but not '.' or '..' alone")
  if (name.length > NAME_LENGTH_MAX) refuse(`, at most ${NAME_LENGTH_MAX} of them`)
  return name
}

/** The address, if it is one of this machine only. */
function checkedHostname(hostname) {
  if (hostname === undefined || hostname === "localhost") return hostname
  if (isIPv4(hostname) && hostname.startsWith("127.")) return hostname
  // There are many spellings of the one loopback address.
  const canBeParsed = isIPv6(hostname) && !hostname.includes("%")
  if (canBeParsed && new URL(`http://[${hostname}]`).hostname === "[::1]") return hostname
  throw new TypeError(
    `invalid hostname ${quoted(hostname)}: use a loopback address, such as 127.0.0.1, ::1 or localhost`
  )
}

/** Seconds that a start may take. */
function startSeconds() {
  const text = process.env.WEIR_START_SECONDS?.trim()
  if (!text) return START_SECONDS
  const seconds = Number(text)
  // A timer takes no more than 2^31 ms.
  if (seconds > 0 && seconds <= 86_400) return seconds
  throw new TypeError(`WEIR_START_SECONDS must be a number of seconds up to 86400, not ${quoted(text)}`)
}

/** Somebody else's text in quotes, on one line and not too long. */
function quoted(text) {
  const short = text.length > QUOTE_LENGTH_MAX ? `${text.slice(0, QUOTE_LENGTH_MAX)}…` : text
  return `'${short.replace(/\p{Cc}/gu, (it) => JSON.stringify(it).slice(1, -1))}'`
}

/**
 * What the server says of itself in its first line. A program that says something else is no server,
 * and is killed; so is one that says nothing for so many seconds.
 */
function announced(child, ended, binary, seconds) {
  return new Promise((resolve, reject) => {
    let line = ""
    let complaint = ""
    const which = process.env.WEIR_BINARY?.trim() ? `WEIR_BINARY (${binary})` : binary
    const kill = (error) => {
      // Its end, not that of its pipes: what it has started may hold them.
      child.once("exit", () => reject(error))
      child.stdout.removeAllListeners("data")
      child.kill("SIGKILL")
      for (const pipe of [child.stdin, child.stdout, child.stderr]) pipe.destroy()
    }
    const isSilent = () => {
      const said = complaint.trim() ? `; on standard error: ${quoted(complaint.trim())}` : ""
      return new Error(
        `${which} did not say within ${seconds} s that it serves, and was killed: if it is a weir with ` +
          `much to read, set WEIR_START_SECONDS to more${said}`
      )
    }
    const silence = setTimeout(() => kill(isSilent()), seconds * 1000)
    const isNoWeir = () => {
      const printed = line.split("\n")[0].trim()
      return new Error(`${which} is no weir: it printed ${printed ? quoted(printed) : "nothing"}`)
    }
    child.stdout.setEncoding("utf8")
    child.stderr.setEncoding("utf8")
    child.stderr.on("data", (text) => {
      complaint = (complaint + text).slice(-COMPLAINT_LENGTH_MAX)
      if (process.env.WEIR_LOG_STDERR) process.stderr.write(text)
    })
    child.stdout.on("data", (text) => {
      line += text
      const end = line.indexOf("\n")
      if (end < 0 && line.length <= LINE_LENGTH_MAX) return
      clearTimeout(silence)
      child.stdout.removeAllListeners("data")
      child.stdout.resume()
      const said = end < 0 ? undefined : saidIn(line.slice(0, end))
      if (said) {
        resolve(said)
        return
      }
      kill(isNoWeir())
    })
    ended.then(({ error, code, signal }) => {
      clearTimeout(silence)
      // A server that ends well has said where it was.
      if (line !== "" || code === 0) reject(isNoWeir())
      const why = error?.message ?? explained(complaint, `${binary} ended with ${signal ?? code}`)
      reject(new Error(`the local Durable Streams server did not start: ${why}`))
    })
  })
}

/** What a server says in this line, if it is a server's: its exports, and its version beside them. */
function saidIn(line) {
  try {
    const { version, ...exports } = JSON.parse(line)
    const { http, sqlite, name, pid } = exports
    const texts = [http.url, sqlite.path, name].every((it) => typeof it === "string")
    return texts && [http.port, pid].every(Number.isInteger) ? { exports, version } : undefined
  } catch {
    return undefined
  }
}

/** What speaks of the server's flags, in the options they stand for. Commands for a shell stay. */
function inOptions(text) {
  return text.replace(/`[^`]*`|--(name|hostname|port)\b( 0\b)?/g, (found, option, zero) => {
    if (option === undefined) return found
    return zero ? `\`${option}: 0\`` : `\`${option}\``
  })
}

/** What the server complains of: the last line is JSON, if it has come that far. */
function explained(complaint, how) {
  const text = complaint.trim()
  try {
    const { message, advice } = JSON.parse(text.split("\n").pop() ?? "").error
    return inOptions(advice ? `${message} (${advice})` : message)
  } catch {
    return text ? `${how}: ${text}` : how
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
