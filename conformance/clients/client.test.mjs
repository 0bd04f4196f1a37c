// `@durable-streams/client` against the real binary: the version the upstream
// suite pins and the newest one.
import * as pinned from "@durable-streams/client"
import * as newest from "durable-streams-client-newest"
import { afterEach, beforeEach, describe, expect, test } from "vitest"
import { Weir, fetchUntilAnswered } from "./weir.mjs"

const CLIENTS = [
  { version: "0.2.6", client: pinned },
  { version: "0.2.7", client: newest },
]
const LIVE_MODES = ["long-poll", "sse"]
const ALL_BYTES = Uint8Array.from({ length: 256 }, (_, byte) => byte)

/**
 * Follows a stream of JSON numbers or of bytes live, and goes on from its last
 * offset when the client gives up, as an application does.
 */
class Follower {
  constructor(client, options) {
    this.client = client
    this.options = options
    this.seen = []
    this.offset = options.offset ?? "-1"
    this.closed = false
    this.waiting = []
    this.controller = new AbortController()
    this.end = new Promise((resolve) => (this.tookTheEnd = resolve))
    this.ended = this.#run()
  }

  async #run() {
    while (!this.controller.signal.aborted && !this.closed) {
      try {
        const response = await this.client.stream({
          ...this.options,
          offset: this.offset,
          signal: this.controller.signal,
          sseResilience: { logWarnings: false },
        })
        const subscribe = this.options.json
          ? response.subscribeJson.bind(response)
          : response.subscribeBytes.bind(response)
        subscribe((batch) => this.#take(batch))
        await response.closed
        // The client says closed before its subscriber took the last batch.
        if (response.streamClosed) await this.end
      } catch (error) {
        if (!this.controller.signal.aborted) this.gaveUp = error
      }
    }
  }

  #take(batch) {
    this.seen.push(...(batch.items ?? batch.data))
    this.offset = batch.offset
    if (batch.streamClosed) {
      this.closed = true
      this.tookTheEnd()
    }
    this.waiting = this.waiting.filter(({ count, resolve }) => {
      const arrived = this.seen.length >= count
      if (arrived) resolve()
      return !arrived
    })
  }

  /** Waits until so many items or bytes arrived. */
  async has(count) {
    if (this.seen.length >= count) return
    await new Promise((resolve) => this.waiting.push({ count, resolve }))
  }

  async stop() {
    this.controller.abort()
    await this.ended
  }
}

function numbers(from, to) {
  return Array.from({ length: to - from }, (_, index) => from + index)
}

describe.each(CLIENTS)("@durable-streams/client $version", ({ client }) => {
  const { DurableStream, IdempotentProducer } = client
  let weir

  beforeEach(async () => {
    weir = await Weir.start()
  })
  afterEach(async () => {
    await weir.stop()
  })

  async function readAll(name) {
    const response = await client.stream({ url: weir.stream(name), live: false })
    return await response.json()
  }

  test("what is appended is read, in every kind of content", async () => {
    const bytes = await DurableStream.create({
      url: weir.stream("a/b/bytes"),
      contentType: "application/octet-stream",
    })
    await bytes.append(ALL_BYTES)
    await bytes.append(ALL_BYTES)
    const read = await client.stream({ url: bytes.url, live: false })
    expect([...(await read.body())]).toEqual([...ALL_BYTES, ...ALL_BYTES])

    const text = await DurableStream.create({
      url: weir.stream("text"),
      contentType: "text/plain",
      body: "grüß ",
    })
    await text.append("gott\n")
    const words = await client.stream({ url: text.url, live: false })
    expect(await words.text()).toBe("grüß gott\n")

    const json = await DurableStream.create({
      url: weir.stream("json"),
      contentType: "application/json",
    })
    await json.append(JSON.stringify({ n: [1, [2]] }))
    await json.append(JSON.stringify([3, 4]))
    expect(await readAll("json")).toEqual([{ n: [1, [2]] }, [3, 4]])
  })

  test("a read goes on from a saved offset", async () => {
    const url = weir.stream("offsets")
    const stream = await DurableStream.create({ url, contentType: "application/json" })
    await stream.append("1")
    const { offset } = await stream.head()
    await stream.append("2")
    await stream.append("3")
    const rest = await client.stream({ url, offset, live: false })
    expect(await rest.json()).toEqual([2, 3])
    const end = await client.stream({ url, offset: rest.offset, live: false })
    expect(await end.json()).toEqual([])
    expect(end.upToDate).toBe(true)
  })

  test("coalesced appends arrive once each", async () => {
    const url = weir.stream("coalesced")
    const stream = await DurableStream.create({ url, contentType: "application/json" })
    await Promise.all(numbers(0, 200).map((n) => stream.append(String(n))))
    expect(await readAll("coalesced")).toEqual(numbers(0, 200))
  })

  test("an idempotent producer with five requests in flight keeps its order", async () => {
    const url = weir.stream("produced")
    const stream = await DurableStream.create({ url, contentType: "application/json" })
    const failures = []
    const producer = new IdempotentProducer(stream, "p", {
      maxBatchBytes: 64,
      maxInFlight: 5,
      onError: (error) => failures.push(error),
    })
    for (const n of numbers(0, 500)) producer.append(String(n))
    await producer.flush()
    expect(failures).toEqual([])
    expect(await readAll("produced")).toEqual(numbers(0, 500))
    const { offset } = await stream.head()
    expect(producer.lastSuccessfulOffset).toBe(offset)
  })

  test("a producer that claims its id again fences the one before", async () => {
    const url = weir.stream("fenced")
    const stream = await DurableStream.create({ url, contentType: "application/json" })
    const failures = []
    const before = new IdempotentProducer(stream, "p", {
      onError: (error) => failures.push(error),
    })
    before.append("1")
    await before.flush()
    const after = new IdempotentProducer(stream, "p", { epoch: 1 })
    after.append("2")
    await after.flush()
    before.append("3")
    await before.flush()
    expect(failures.map((error) => error.name)).toEqual(["StaleEpochError"])
    const claiming = new IdempotentProducer(stream, "p", { autoClaim: true })
    claiming.append("4")
    await claiming.flush()
    expect(claiming.epoch).toBe(2)
    expect(await readAll("fenced")).toEqual([1, 2, 4])
  })

  test("a producer closes with its last message, and once more with the same answer", async () => {
    const url = weir.stream("closed")
    const stream = await DurableStream.create({ url, contentType: "application/json" })
    const producer = new IdempotentProducer(stream, "p", {})
    producer.append("1")
    const { finalOffset } = await producer.close("2")
    expect(await readAll("closed")).toEqual([1, 2])
    expect(await stream.close()).toEqual({ finalOffset })
    for (const late of [stream.append("3"), stream.close({ body: "3" })]) {
      const refused = await late.catch((error) => error)
      expect(refused.status).toBe(409)
      expect(refused.headers["stream-closed"]).toBe("true")
      expect(refused.headers["stream-next-offset"]).toBe(finalOffset)
    }
  })

  test("a deleted stream is gone and its name is free", async () => {
    const url = weir.stream("deleted")
    const stream = await DurableStream.create({ url, contentType: "application/json" })
    await stream.append("1")
    await stream.delete()
    const gone = await DurableStream.head({ url }).catch((error) => error)
    expect(gone.exists === false || gone.code === "NOT_FOUND").toBe(true)
    const again = await DurableStream.create({ url, contentType: "application/json" })
    await again.append("2")
    expect(await readAll("deleted")).toEqual([2])
  })

  describe.each(LIVE_MODES)("live by %s", (live) => {
    test("a follower gets what was there and what comes, then the end", async () => {
      const url = weir.stream("live")
      const stream = await DurableStream.create({ url, contentType: "application/json" })
      await stream.append("0")
      const follower = new Follower(client, { url, live, json: true })
      await follower.has(1)
      for (const n of numbers(1, 20)) {
        await stream.append(String(n))
        await follower.has(n + 1)
      }
      await stream.close({ body: "20" })
      await follower.ended
      expect(follower.seen).toEqual(numbers(0, 21))
      expect(follower.closed).toBe(true)
      expect(follower.offset).toBe((await stream.head()).offset)
    })

    test("a follower gets bytes as they are", async () => {
      const url = weir.stream("live-bytes")
      const contentType = "application/octet-stream"
      const stream = await DurableStream.create({ url, contentType })
      await stream.append(ALL_BYTES)
      const follower = new Follower(client, { url, live })
      await follower.has(256)
      await stream.append(ALL_BYTES.slice(0, 1))
      await follower.has(257)
      await stream.append(ALL_BYTES)
      await follower.has(513)
      await follower.stop()
      expect(follower.seen).toEqual([...ALL_BYTES, 0, ...ALL_BYTES])
    })

    test("a follower from now gets only what comes", async () => {
      const url = weir.stream("live-now")
      const stream = await DurableStream.create({ url, contentType: "application/json" })
      await stream.append("1")
      const response = await client.stream({ url, live, offset: "now", json: true })
      const arrived = new Promise((resolve) => {
        response.subscribeJson(({ items }) => {
          if (items.length > 0) resolve([...items])
        })
      })
      await stream.append("2")
      expect(await arrived).toEqual([2])
      response.cancel()
    })

    test("a follower goes on after kill -9 without loss or repetition", async () => {
      const url = weir.stream("live-restart")
      const stream = await DurableStream.create({ url, contentType: "application/json" })
      const follower = new Follower(client, { url, live, json: true })
      for (const round of [0, 1, 2]) {
        for (const n of numbers(round * 10, round * 10 + 10)) await stream.append(String(n))
        await follower.has(round * 10 + 10)
        await weir.kill()
        await weir.restart()
      }
      await stream.append("30")
      await follower.has(31)
      await follower.stop()
      expect(await readAll("live-restart")).toEqual(numbers(0, 31))
      expect(follower.seen).toEqual(numbers(0, 31))
    })

    test("a producer and a follower live through kill -9 in mid-flight", async () => {
      const url = weir.stream("both-restart")
      const stream = await DurableStream.create({ url, contentType: "application/json" })
      const follower = new Follower(client, { url, live, json: true })
      const failures = []
      const producer = new IdempotentProducer(stream, "p", {
        fetch: fetchUntilAnswered,
        maxBatchBytes: 64,
        onError: (error) => failures.push(error),
      })
      for (const round of [0, 1, 2]) {
        for (const n of numbers(round * 400, round * 400 + 400)) producer.append(String(n))
        // Some of this round's batches are acknowledged, the others in flight.
        await follower.has(round * 400 + 40)
        await weir.kill()
        await weir.restart()
      }
      await producer.flush()
      await follower.has(1200)
      await follower.stop()
      expect(failures).toEqual([])
      expect(await readAll("both-restart")).toEqual(numbers(0, 1200))
      expect(follower.seen).toEqual(numbers(0, 1200))
    })
  })
})
