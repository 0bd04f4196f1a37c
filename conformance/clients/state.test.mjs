// `@durable-streams/state` against the real binary: a StreamDB that
// materialises change events, first what is there and then what comes.
import { DurableStream } from "@durable-streams/client"
import { createStateSchema } from "@durable-streams/state"
import { createStreamDB } from "@durable-streams/state/db"
import { afterEach, beforeEach, describe, expect, test } from "vitest"
import { Weir } from "./weir.mjs"

const anything = {
  "~standard": { version: 1, vendor: "weir-conformance", validate: (value) => ({ value }) },
}
const schema = createStateSchema({
  users: { schema: anything, type: "user", primaryKey: "id" },
  rooms: { schema: anything, type: "room", primaryKey: "id" },
})

describe.each(["long-poll", "sse"])("@durable-streams/state live by %s", (live) => {
  let weir
  let stream
  let opened

  beforeEach(async () => {
    weir = await Weir.start()
    opened = []
    stream = await DurableStream.create({
      url: weir.stream("state/changes"),
      contentType: "application/json",
    })
  })
  afterEach(async () => {
    for (const db of opened) db.close()
    await weir.stop()
  })

  function open() {
    const db = createStreamDB({
      streamOptions: { url: stream.url, contentType: "application/json" },
      state: schema,
      live,
    })
    opened.push(db)
    return db
  }

  async function send(...events) {
    for (const event of events) await stream.append(JSON.stringify(event))
  }

  function rows(collection) {
    const byId = [...collection.values()].map(({ id, name }) => ({ id, name }))
    return byId.sort((a, b) => a.id.localeCompare(b.id))
  }

  test("what was written before is there after the preload", async () => {
    await send(
      schema.users.insert({ value: { id: "1", name: "Ada" } }),
      schema.users.insert({ value: { id: "2", name: "Bob" } }),
      schema.rooms.insert({ value: { id: "1", name: "Hall" } }),
      schema.users.update({ value: { id: "2", name: "Bo" } }),
      schema.users.delete({ key: "1" })
    )
    const db = open()
    await db.preload()
    expect(rows(db.collections.users)).toEqual([{ id: "2", name: "Bo" }])
    expect(rows(db.collections.rooms)).toEqual([{ id: "1", name: "Hall" }])
    expect(db.offset).toBe((await stream.head()).offset)
  })

  test("a change arrives live and its transaction is awaited", async () => {
    const db = open()
    await db.preload()
    expect(rows(db.collections.users)).toEqual([])
    for (const [id, name] of [["1", "Ada"], ["2", "Bob"], ["1", "Ada L."]]) {
      const txid = crypto.randomUUID()
      const arrived = db.utils.awaitTxId(txid)
      await send(schema.users.upsert({ value: { id, name }, headers: { txid } }))
      await arrived
    }
    expect(rows(db.collections.users)).toEqual([
      { id: "1", name: "Ada L." },
      { id: "2", name: "Bob" },
    ])
  })

  test("every reader materialises the same state, also after kill -9", async () => {
    const before = open()
    await before.preload()
    for (let n = 0; n < 50; n += 1) {
      const value = { id: String(n % 10), name: `name ${n}` }
      await send(schema.users.upsert({ value }))
    }
    await weir.kill()
    await weir.restart()
    const txid = crypto.randomUUID()
    const after = open()
    await after.preload()
    const arrived = after.utils.awaitTxId(txid)
    await send(schema.users.delete({ key: "0", headers: { txid } }))
    await arrived

    const late = open()
    await late.preload()
    const expected = Array.from({ length: 9 }, (_, n) => ({
      id: String(n + 1),
      name: `name ${n + 41}`,
    }))
    expect(rows(after.collections.users)).toEqual(expected)
    expect(rows(late.collections.users)).toEqual(expected)
  })
})
