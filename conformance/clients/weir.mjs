// A `weir` process of a test's own: started on an empty directory, killed with
// SIGKILL, started again on the same directory and port.
//
// WEIR_BINARY names the binary; the Rust tests set it.
import { spawn } from "node:child_process"
import { mkdtemp, rm } from "node:fs/promises"
import { createServer } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { createInterface } from "node:readline"
import { setTimeout as pause } from "node:timers/promises"

// A start that takes longer has failed.
const START_MS_MAX = 30_000
// Below the range the kernel hands to outgoing connections, so that nothing
// takes the port between a kill and the restart on it.
const PORTS = { from: 12_000, to: 19_000 }

let portsTried = process.pid * 97

async function freePort() {
  for (let left = PORTS.to - PORTS.from; left > 0; left -= 1) {
    portsTried += 1
    const port = PORTS.from + (portsTried % (PORTS.to - PORTS.from))
    const free = await new Promise((resolve) => {
      const probe = createServer()
      probe.once("error", () => resolve(false))
      probe.listen(port, "127.0.0.1", () => probe.close(() => resolve(true)))
    })
    if (free) return port
  }
  throw new Error("every port is taken")
}

export class Weir {
  static async start() {
    const binary = process.env.WEIR_BINARY
    if (!binary) throw new Error("set WEIR_BINARY to the weir binary")
    const directory = await mkdtemp(join(tmpdir(), "weir-clients-"))
    const weir = new Weir(binary, directory, await freePort())
    await weir.restart()
    return weir
  }

  constructor(binary, directory, port) {
    this.binary = binary
    this.directory = directory
    this.port = port
    this.url = `http://127.0.0.1:${port}`
    this.child = undefined
    this.log = []
  }

  /** The address of a stream by its name. */
  stream(name) {
    return `${this.url}/v1/stream/${name}`
  }

  /** Starts the process and waits for its printed address and its health. */
  async restart() {
    if (this.child) throw new Error("the server is still running")
    const flags = ["serve", "--port", String(this.port), "--data", this.directory]
    const environment = { ...process.env }
    for (const name of ["PORT", "DS_HOST", "DS_ROOT"]) delete environment[name]
    const child = spawn(this.binary, flags, {
      env: environment,
      stdio: ["ignore", "pipe", "pipe"],
    })
    this.child = child
    const printed = new Promise((resolve, reject) => {
      for (const pipe of [child.stdout, child.stderr]) {
        createInterface({ input: pipe }).on("line", (line) => {
          this.log.push(line)
          if (line.includes(this.url)) resolve()
        })
      }
      child.once("error", reject)
      child.once("exit", (code) => reject(new Error(`weir ended with ${code}`)))
    })
    const deadline = AbortSignal.timeout(START_MS_MAX)
    try {
      await Promise.race([printed, aborted(deadline)])
      while (!(await this.healthy())) {
        deadline.throwIfAborted()
        await pause(5)
      }
    } catch (error) {
      throw new Error(`weir did not start: ${error}\n${this.log.join("\n")}`)
    }
  }

  async healthy() {
    try {
      const answer = await fetch(`${this.url}/health`)
      await answer.arrayBuffer()
      return answer.status === 200
    } catch {
      return false
    }
  }

  /** `kill -9`, over when the process is gone. */
  async kill() {
    const child = this.child
    this.child = undefined
    const gone = new Promise((resolve) => child.once("exit", resolve))
    child.kill("SIGKILL")
    await gone
  }

  /** Kills what runs and removes the data. */
  async stop() {
    if (this.child) await this.kill()
    await rm(this.directory, { recursive: true, force: true })
  }
}

function aborted(signal) {
  return new Promise((_, reject) => {
    signal.addEventListener("abort", () => reject(signal.reason), { once: true })
  })
}

/**
 * A fetch that repeats a request until it is answered, as an application does
 * that must know the outcome. Only for requests the server can tell apart.
 */
export async function fetchUntilAnswered(...request) {
  for (;;) {
    try {
      return await fetch(...request)
    } catch (error) {
      if (request[1]?.signal?.aborted) throw error
      await pause(10)
    }
  }
}
