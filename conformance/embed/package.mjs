// The npm package as a program uses it, run by Node and by Bun. Prints `pass <name>` or
// `fail <name>: <why>` for each case; the binary is WEIR_BINARY.
import assert from "node:assert/strict"
import { fork, spawn } from "node:child_process"
import {
  copyFileSync, cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync,
} from "node:fs"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { createInterface } from "node:readline"
import { fileURLToPath, pathToFileURL } from "node:url"
import { findBinary } from "../../http/npm/binary.js"
import { startLocalDurableStreamsServer as start } from "../../http/npm/index.js"

const here = dirname(fileURLToPath(import.meta.url))
const daemon = join(here, "../../http/npm/daemon.js")
const root = mkdtempSync(join(tmpdir(), "weir-embed-"))
process.env.DS_LOCAL_DATA_ROOT = root

/** A fact that comes true on its own. No fact takes longer than this. */
const DEADLINE_MS = 20_000
async function until(what, fact) {
  const began = Date.now()
  while (!(await fact())) {
    assert.ok(Date.now() - began < DEADLINE_MS, `it never came true: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}

const serves = (url) => fetch(`${url}/health`).then((answer) => answer.ok, () => false)
const gone = (url) => until(`${url} is gone`, async () => !(await serves(url)))
const once = (child, event) => new Promise((resolve) => child.once(event, (...all) => resolve(all)))
const firstLine = async (child) => {
  for await (const line of createInterface({ input: child.stdout })) return JSON.parse(line)
  throw new Error("it printed nothing")
}

/** Runs a daemon that ends by itself. */
async function ends(...args) {
  const child = spawn(process.execPath, [daemon, ...args], { stdio: ["ignore", "pipe", "pipe"] })
  const said = { stdout: "", stderr: "" }
  for (const pipe of Object.keys(said)) child[pipe].on("data", (text) => (said[pipe] += text))
  const [code] = await once(child, "close")
  return { code, ...said }
}

/** A start with another program for a binary: one that runs this script. */
async function startOf(script, options) {
  const program = join(root, "program")
  writeFileSync(program, `#!/bin/sh\n${script}\n`, { mode: 0o755 })
  const { WEIR_BINARY } = process.env
  process.env.WEIR_BINARY = program
  try {
    await start(options)
  } catch (error) {
    return error
  } finally {
    process.env.WEIR_BINARY = WEIR_BINARY
  }
  throw new Error("it started")
}

async function put(url, text) {
  const headers = { "content-type": "text/plain" }
  return (await fetch(`${url}/v1/stream/s`, { method: "PUT", headers, body: text })).status
}
const read = async (url) => (await fetch(`${url}/v1/stream/s`)).text()

const cases = {
  "it has the peer's shape and serves": async () => {
    const server = await start({ name: "shape" })
    const { http, sqlite, name, pid } = server.exports
    assert.equal(http.url, `http://127.0.0.1:${http.port}`)
    assert.equal(sqlite.path, join(root, "shape", "durable-streams.sqlite"))
    assert.ok(existsSync(sqlite.path))
    assert.deepEqual([name, server.name, server.pid], ["shape", "shape", pid])
    assert.ok(pid > 0 && pid !== process.pid)
    assert.ok(await serves(http.url))
    assert.equal(await put(http.url, "hello"), 201)
    assert.equal(await read(http.url), "hello")
    await server.close()
    assert.equal(await serves(http.url), false)
    await server.close()
    await server.closed
  },
  "data survives a restart under the same name": async () => {
    const first = await start({ name: "kept" })
    assert.equal(await put(first.exports.http.url, "kept"), 201)
    await first.close()
    const second = await start({ name: "kept", port: first.exports.http.port })
    assert.equal(second.exports.http.port, first.exports.http.port)
    assert.equal(await read(second.exports.http.url), "kept")
    await second.close()
  },
  "servers of two names run side by side": async () => {
    const servers = await Promise.all([start({ name: "left" }), start({ name: "right" })])
    const [left, right] = servers.map((server) => server.exports.http.url)
    assert.equal(await put(left, "l"), 201)
    assert.equal(await put(right, "r"), 201)
    assert.deepEqual([await read(left), await read(right)], ["l", "r"])
    await Promise.all(servers.map((server) => server.close()))
  },
  "a second start of a name is told who has it": async () => {
    const server = await start({ name: "twice" })
    const { pid, http } = server.exports
    await assert.rejects(start({ name: "twice" }), (error) => {
      assert.match(error.message, new RegExp(`'twice' is running: pid ${pid}, .*${http.url}`))
      assert.ok(error.message.endsWith("`weir local stop --name twice`, or take another `name`)"), error.message)
      return true
    })
    assert.ok(await serves(http.url))
    await server.close()
  },
  "what can't start says why": async () => {
    await assert.rejects(start({ name: ".." }), /invalid server name/)
    await assert.rejects(start({ name: "wide", hostname: "0.0.0.0" }), /loopback/)
    const server = await start({ name: "there" })
    const { port } = server.exports.http
    await assert.rejects(start({ name: "late", port }), (error) => {
      assert.ok(error.message.endsWith("`port: 0` takes a free one, or take another `port`"), error.message)
      return true
    })
    await server.close()
    assert.throws(() => findBinary({ WEIR_BINARY: "/nowhere/weir" }), /WEIR_BINARY/)
    assert.equal(findBinary({ WEIR_BINARY: process.env.WEIR_BINARY }), process.env.WEIR_BINARY)
  },
  "the binary is the one named, or beside the package, or on PATH": async () => {
    // A package of its own, since there may be a binary beside this one.
    const installed = join(root, "installed", "streamweir-local")
    cpSync(join(here, "../../http/npm"), installed, { recursive: true })
    rmSync(join(installed, "bin"), { recursive: true, force: true })
    const { findBinary } = await import(pathToFileURL(join(installed, "binary.js")).href)
    const place = (...parts) => {
      const dir = join(root, ...parts)
      mkdirSync(dir, { recursive: true })
      copyFileSync(process.execPath, join(dir, "weir"))
      return join(dir, "weir")
    }
    assert.throws(() => findBinary({ PATH: "/nowhere" }), /set WEIR_BINARY/)
    // What is two directories up is another project's.
    place("target", "release")
    assert.throws(() => findBinary({}), /set WEIR_BINARY/)
    const onPath = place("on-path")
    const environment = { PATH: ["/nowhere", "", dirname(onPath), root].join(":") }
    assert.equal(findBinary(environment), onPath)
    const beside = place("installed", "streamweir-local", "bin")
    assert.equal(findBinary(environment), beside)
    const platform = `${process.platform}-${process.arch}`
    const forThis = place("installed", "streamweir-local", "bin", platform)
    assert.equal(findBinary(environment), forThis)
    assert.equal(findBinary({ ...environment, WEIR_BINARY: onPath }), onPath)
    assert.equal(findBinary({ ...environment, WEIR_BINARY: " " }), forThis)
  },
  "options that are none are refused before anything starts": async () => {
    for (const options of [
      null, "name", [], { name: 7 }, { name: null }, { hostname: 1 }, { port: "80" }, { port: 1.5 },
      { port: -1 }, { port: 65_536 }, { port: NaN }, { Port: 80 },
    ]) {
      await assert.rejects(start(options), TypeError, JSON.stringify(options))
    }
    const server = await start({ name: "--port" })
    assert.equal(server.name, "--port", "a value is no flag")
    await server.close()
  },
  "a name or an address that is none is refused in the package's own words": async () => {
    const names = [
      ["..", "'..': use letters, digits, '.', '_' and '-', but not '.' or '..' alone"],
      [" . ", "'.': use letters, digits, '.', '_' and '-', but not '.' or '..' alone"],
      ["n".repeat(129), `'${"n".repeat(129)}': use letters, digits, '.', '_' and '-', at most 128 of them`],
      // Not what the server trims.
      ["\ufeffa", "'\ufeffa': use letters, digits, '.', '_' and '-'"],
      ["a\0\n", "'a\\u0000': use letters, digits, '.', '_' and '-'"],
      ["n ".repeat(200), `'${"n ".repeat(100)}…': use letters, digits, '.', '_' and '-'`],
      ...["a b", "a/b", "../x", "ä"].map((name) => [name, `'${name}': use letters, digits, '.', '_' and '-'`]),
    ]
    for (const [name, why] of names) {
      await assert.rejects(start({ name }), { name: "TypeError", message: `invalid server name ${why}` })
    }
    for (const hostname of [
      "", "0.0.0.0", "8.8.8.8", "example.org", "127.1", "0127.0.0.1", "[::1]", "::ffff:127.0.0.1", "::1%lo", "::2",
    ]) {
      const message = `invalid hostname '${hostname}': use a loopback address, such as 127.0.0.1, ::1 or localhost`
      await assert.rejects(start({ name: "far", hostname }), { name: "TypeError", message })
    }
    assert.ok(!existsSync(join(root, "far")))
  },
  "a name or an address that is one is the server's": async () => {
    for (const [name, expect] of [
      ["My_app-1.2", "My_app-1.2"], ["...", "..."], ["  spaced\n", "spaced"], ["", "default"], [" \u0085", "default"],
      ["n".repeat(128), "n".repeat(128)], [undefined, "default"],
    ]) {
      const server = await start({ name })
      assert.equal(server.name, expect)
      await server.close()
    }
    for (const [hostname, expect] of [["localhost", "127.0.0.1"], ["127.0.0.2", "127.0.0.2"]]) {
      const server = await start({ name: "near", hostname })
      assert.equal(server.exports.http.url, `http://${expect}:${server.exports.http.port}`)
      await server.close()
    }
    // Not every machine has this one; those that do are told of it as ever.
    for (const hostname of ["::1", "0:0:0:0:0:0:0:1", "::0.0.0.1"]) {
      const server = await start({ name: "near", hostname }).catch((error) => error)
      assert.ok(!(server instanceof TypeError), server.message)
      await server.close?.()
    }
  },
  "a binary that is no weir is said to be none, and is killed": async () => {
    const which = `WEIR_BINARY (${join(root, "program")}) is no weir: it printed`
    const pid = join(root, "program.pid")
    const writesPid = `echo $$ > '${pid}'`
    for (const [script, printed] of [
      ["echo hello; exec sleep 1000", "'hello'"],
      ["echo '{\"http\":{\"url\":\"u\"}}'; exec sleep 1000", `'{"http":{"url":"u"}}'`],
      ["echo null; exec sleep 1000", "'null'"],
      ["echo; exec sleep 1000", "nothing"],
      ["exec tr '\\0' x < /dev/zero", `'${"x".repeat(200)}…'`],
      // What it started holds its pipes and its end does not.
      ["sleep 1 & echo hello; wait", "'hello'"],
    ]) {
      const error = await startOf(`${writesPid}; ${script}`)
      assert.equal(error.message, `${which} ${printed}`)
      assert.ok(!(error instanceof TypeError))
      const number = Number(readFileSync(pid, "utf8"))
      assert.throws(() => process.kill(number, 0), { code: "ESRCH" }, script)
    }
    for (const [script, printed] of [["printf half; exit 3", "'half'"], ["exit 0", "nothing"]]) {
      assert.equal((await startOf(script)).message, `${which} ${printed}`)
    }
  },
  "a binary that says nothing is waited for as long as it is told, and is killed": async () => {
    const program = join(root, "program")
    const pid = join(root, "program.pid")
    process.env.WEIR_START_SECONDS = "0.2"
    try {
      for (const [script, said] of [
        ["exec sleep 1000", ""],
        ["printf half; exec sleep 1000", ""],
        ["echo 'it takes long' >&2; exec sleep 1000", "; on standard error: 'it takes long'"],
      ]) {
        const error = await startOf(`echo $$ > '${pid}'; ${script}`)
        const start = `WEIR_BINARY (${program}) did not say within 0.2 s that it serves, and was killed`
        assert.ok(error.message.startsWith(start), error.message)
        assert.ok(error.message.includes("WEIR_START_SECONDS"), error.message)
        // On a busy machine it is killed before its first word.
        assert.ok([`to more${said}`, "to more"].some((end) => error.message.endsWith(end)), error.message)
        const number = existsSync(pid) && Number(readFileSync(pid, "utf8"))
        if (number) assert.throws(() => process.kill(number, 0), { code: "ESRCH" }, script)
      }
      for (const seconds of ["0", "-1", "soon", "86401"]) {
        process.env.WEIR_START_SECONDS = seconds
        await assert.rejects(start({ name: "never" }), TypeError, seconds)
      }
      process.env.WEIR_START_SECONDS = " "
      await (await start({ name: "blank" })).close()
    } finally {
      delete process.env.WEIR_START_SECONDS
    }
    assert.ok(!existsSync(join(root, "never")))
  },
  "a binary that ends says why, or how": async () => {
    const program = join(root, "program")
    for (const [script, why] of [
      ["exit 3", `${program} ended with 3`],
      ["echo 'it is late' >&2; exit 3", `${program} ended with 3: it is late`],
      ["kill -KILL $$", `${program} ended with SIGKILL`],
      [`echo '{"error":{"message":"no room","advice":"make some"}}' >&2; exit 3`, "no room (make some)"],
    ]) {
      const error = await startOf(script)
      assert.equal(error.message, `the local Durable Streams server did not start: ${why}`)
    }
  },
  "a binary of another version is warned of and named in the log, and exports are as ever": async () => {
    const program = join(root, "program")
    const said = { http: { url: "http://127.0.0.1:1", port: 1 }, sqlite: { path: "/x" }, name: "n", pid: 1 }
    const line = JSON.stringify({ ...said, version: "9.9.9" })
    writeFileSync(program, `#!/bin/sh\necho '${line}'\ncat > /dev/null\n`, { mode: 0o755 })
    const { WEIR_BINARY } = process.env
    const warned = once(process, "warning")
    process.env.WEIR_BINARY = program
    try {
      const server = await start()
      assert.deepEqual(server.exports, said)
      await server.close()
    } finally {
      process.env.WEIR_BINARY = WEIR_BINARY
    }
    const [{ name, message }] = await warned
    assert.equal(name, "WeirVersionWarning")
    assert.match(message, /9\.9\.9/)
  },
  "a terminal's interrupt is the program's: its server goes on until it is closed": async () => {
    const server = await start({ name: "handled" })
    const { http } = server.exports
    // As a terminal does, which sends it to both; a program with a handler of its own goes on.
    process.kill(server.pid, "SIGINT")
    for (let times = 0; times < 100; times += 1) {
      assert.ok((await put(http.url, "last words")) < 300)
      assert.equal(await read(http.url), "last words")
    }
    await server.close()
    assert.equal(await serves(http.url), false)
    const other = await start({ name: "handled" })
    process.kill(other.pid, "SIGTERM")
    await other.closed
  },
  "whoever waits for the end goes on until then": async () => {
    const child = spawn(process.execPath, [join(here, "waits.mjs")], { stdio: ["ignore", "pipe", "inherit"] })
    const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
    const exited = once(child, "exit")
    const { pid } = JSON.parse((await lines.next()).value)
    process.kill(pid, "SIGTERM")
    assert.equal((await lines.next()).value, "it has ended")
    assert.deepEqual(await exited, [0, null])
    // Without waiting for it a program ends, and its server with it.
    const leaves = spawn(process.execPath, [join(here, "waits.mjs"), "not"], { stdio: ["ignore", "pipe", "inherit"] })
    const left = once(leaves, "exit")
    const exports = await firstLine(leaves)
    assert.deepEqual(await left, [0, null])
    await gone(exports.http.url)
  },
  "a forked daemon says when it is ready and leaves with its parent's word": async () => {
    const child = fork(daemon, ["--name", "forked"])
    const [message] = await once(child, "message")
    assert.equal(message.type, "ready")
    assert.equal(message.exports.name, "forked")
    const { url } = message.exports.http
    assert.ok(await serves(url))
    const exited = once(child, "exit")
    child.disconnect()
    assert.equal((await exited)[0], 0)
    assert.equal(await serves(url), false)
  },
  "a daemon of its own prints a line and ends with a signal": async () => {
    const child = spawn(process.execPath, [daemon, "alone"], { stdio: ["ignore", "pipe", "inherit"] })
    const exports = await firstLine(child)
    assert.equal(exports.name, "alone")
    assert.ok(await serves(exports.http.url))
    const exited = once(child, "exit")
    child.kill("SIGTERM")
    assert.equal((await exited)[0], 0)
    assert.equal(await serves(exports.http.url), false)
  },
  "a daemon says how it is used, and what it can't do": async () => {
    for (const flag of ["--help", "-h"]) {
      const { code, stdout, stderr } = await ends(flag)
      assert.deepEqual([code, stderr], [0, ""])
      assert.match(stdout, /^Usage: streamweir-local \[NAME\] \[OPTIONS\]$/m)
      for (const option of ["--name", "--hostname", "--port", "--help"]) assert.ok(stdout.includes(option), option)
    }
    for (const [args, why] of [
      [["a b"], /^invalid server name 'a b': use letters/],
      [["--hostname", "8.8.8.8"], /^invalid hostname '8.8.8.8': use a loopback/],
      [["--port", "http"], /^port must be a whole number from 0 to 65535, not http\n$/],
      [["--port", "65536"], /^port must be a whole number from 0 to 65535, not 65536\n$/],
      [["a", "b"], /^one NAME at most: a b\n$/],
      [["--bogus"], /--bogus/],
    ]) {
      const { code, stdout, stderr } = await ends(...args)
      assert.deepEqual([code, stdout], [1, ""], args.join(" "))
      assert.match(stderr, why)
    }
  },
  "a daemon whose server is gone goes too": async () => {
    const child = spawn(process.execPath, [daemon, "left"], { stdio: ["ignore", "pipe", "inherit"] })
    const exited = once(child, "exit")
    const { pid } = await firstLine(child)
    process.kill(pid, "SIGKILL")
    assert.equal((await exited)[0], 1)
  },
  "a parent that is killed leaves no server behind": async () => {
    const script = join(here, "parent.mjs")
    const child = spawn(process.execPath, [script], { stdio: ["ignore", "pipe", "inherit"] })
    const exports = await firstLine(child)
    assert.ok(await serves(exports.http.url))
    child.kill("SIGKILL")
    await gone(exports.http.url)
    const next = await start({ name: exports.name })
    await next.close()
  },
}

let failed = 0
for (const [name, run] of Object.entries(cases)) {
  try {
    await run()
    console.log(`pass ${name}`)
  } catch (error) {
    failed += 1
    console.log(`fail ${name}: ${error.stack}`)
  }
}
rmSync(root, { recursive: true, force: true })
process.exit(failed === 0 ? 0 : 1)
