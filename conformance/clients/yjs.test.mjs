// `@durable-streams/y-durable-streams` against the real binary: its own layer
// server in front, our server behind it, two documents that must converge.
//
// The layer names a snapshot by the offset A_B it was taken at and goes on at
// A_(B+1): an offset we never gave out, beyond the tail when it is used first,
// inside a record later. The update right behind a snapshot must not be lost.
import { YjsProvider } from "@durable-streams/y-durable-streams"
import { YjsServer } from "@durable-streams/y-durable-streams/server"
import { Awareness } from "y-protocols/awareness"
import { afterEach, beforeEach, describe, expect, test } from "vitest"
import * as Y from "yjs"
import { Weir } from "./weir.mjs"

// Small enough that a few updates make the layer compact.
const COMPACTION_BYTES = 4096

describe.each(["sse", "long-poll"])("y-durable-streams live by %s", (liveMode) => {
  let weir
  let layer
  let opened

  beforeEach(async () => {
    weir = await Weir.start()
    layer = await startLayer()
    opened = []
  })
  afterEach(async () => {
    for (const { provider } of opened) provider.destroy()
    await layer.stop()
    await weir.stop()
  })

  async function startLayer() {
    const server = new YjsServer({
      dsServerUrl: weir.url,
      compactionThreshold: COMPACTION_BYTES,
    })
    await server.start()
    return server
  }

  /** A document of its own, in step with the server. */
  async function open(docId, presence = false) {
    const doc = new Y.Doc()
    const awareness = presence ? new Awareness(doc) : undefined
    const baseUrl = `${layer.url}/v1/yjs/service`
    const options = { doc, baseUrl, docId, liveMode, awareness, connect: false }
    const provider = new YjsProvider(options)
    const synced = new Promise((resolve) => {
      provider.on("synced", (now) => now && resolve())
    })
    provider.on("error", () => {})
    await provider.connect()
    await synced
    const side = { doc, provider, awareness, text: doc.getText("text") }
    opened.push(side)
    return side
  }

  /** Waits until the document says so; the test's timeout is the deadline. */
  async function until(doc, condition) {
    while (!condition()) await new Promise((resolve) => doc.once("update", resolve))
  }

  async function write(side, text) {
    side.text.insert(side.text.length, text)
    await side.provider.flush()
  }

  /** The offset the layer's snapshot was taken at, if there is one. */
  async function snapshotOffset(docId) {
    const discovery = `${layer.url}/v1/yjs/service/docs/${docId}?offset=snapshot`
    const answer = await fetch(discovery, { redirect: "manual" })
    await answer.arrayBuffer()
    const offset = new URL(answer.headers.get("location"), discovery).searchParams.get("offset")
    return offset.endsWith("_snapshot") ? offset.slice(0, -"_snapshot".length) : undefined
  }

  async function tail(docId) {
    const url = weir.stream(`yjs/service/docs/${docId}/.updates`)
    const answer = await fetch(url, { method: "HEAD" })
    return answer.headers.get("stream-next-offset")
  }

  /** Writes enough for a snapshot and waits until it stands at the tail. */
  async function compact(side, docId) {
    const before = await snapshotOffset(docId)
    await write(side, "x".repeat(COMPACTION_BYTES))
    for (;;) {
      const offset = await snapshotOffset(docId)
      if (offset === before) continue
      expect(offset).toBe(await tail(docId))
      return
    }
  }

  test("two documents converge whoever writes", async () => {
    const a = await open("folder/shared")
    const b = await open("folder/shared")
    await write(a, "from a;")
    await until(b.doc, () => b.text.toString() === "from a;")
    await write(b, "from b;")
    await until(a.doc, () => a.text.toString() === "from a;from b;")
    for (let n = 10; n < 30; n += 1) await Promise.all([write(a, `a${n}`), write(b, `b${n}`)])
    for (const { doc, text } of [a, b]) await until(doc, () => text.length === 14 + 20 * 6)
    expect(b.text.toString()).toBe(a.text.toString())
  })

  test("a late document gets everything", async () => {
    const a = await open("late")
    for (let n = 0; n < 30; n += 1) await write(a, `${n};`)
    const b = await open("late")
    await until(b.doc, () => b.text.length === a.text.length)
    expect(b.text.toString()).toBe(a.text.toString())
  })

  test("no update behind a snapshot is lost, catching up or waiting", async () => {
    const a = await open("compacted")
    for (const round of [1, 2]) {
      await write(a, `a record before the snapshot ${round};`)
      await compact(a, "compacted")
      // Waits one past the tail.
      const waiting = await open("compacted")
      expect(waiting.text.toString()).toBe(a.text.toString())
      await write(a, `right behind the snapshot ${round};`)
      await until(waiting.doc, () => waiting.text.length === a.text.length)
      // Reads from inside the record that has come since.
      const late = await open("compacted")
      expect(late.text.toString()).toBe(a.text.toString())
      // The second compaction itself reads from there.
    }
  })

  test("presence is seen by the other side", async () => {
    const a = await open("presence", true)
    const b = await open("presence", true)
    const seen = new Promise((resolve) => {
      a.awareness.on("change", () => {
        const state = a.awareness.getStates().get(b.doc.clientID)
        if (state?.user === "b") resolve()
      })
    })
    b.awareness.setLocalState({ user: "b" })
    await seen
  })

  test("a document survives kill -9 of the server behind the layer", async () => {
    const a = await open("restarted")
    await write(a, "before;")
    await weir.kill()
    await weir.restart()
    await layer.stop()
    layer = await startLayer()
    const b = await open("restarted")
    await until(b.doc, () => b.text.toString() === "before;")
    await write(b, "after;")
    const c = await open("restarted")
    await until(c.doc, () => c.text.toString() === "before;after;")
  })

  test("a deleted document takes its streams with it", async () => {
    const a = await open("deleted")
    await write(a, "gone")
    a.provider.destroy()
    const url = `${layer.url}/v1/yjs/service/docs/deleted`
    expect((await fetch(url, { method: "DELETE" })).status).toBe(204)
    const streams = `${weir.url}/v1/stream/yjs/service/docs/deleted`
    for (const name of [".updates", ".awareness/default"]) {
      expect((await fetch(`${streams}/${name}`, { method: "HEAD" })).status).toBe(404)
    }
  })
})
