// The types of the npm package, checked by the compiler and never run. What must not be possible is
// marked: the compiler complains if it is.
import {
  startLocalDurableStreamsServer,
  type LocalServer,
  type LocalServerExports,
  type LocalServerOptions,
} from "streamweir-local"
import type { ReadyMessage } from "streamweir-local/daemon"
import type { ReadyMessage as Internal } from "streamweir-local/internal/daemon"

export async function use(): Promise<string> {
  const options: LocalServerOptions = { name: "a", hostname: "127.0.0.1", port: 0 }
  const server: LocalServer = await startLocalDurableStreamsServer(options)
  await startLocalDurableStreamsServer()
  await startLocalDurableStreamsServer({})
  const exports: LocalServerExports = server.exports
  const text: string = exports.http.url + exports.sqlite.path + exports.name + server.name
  const number: number = exports.http.port + exports.pid + server.pid
  const closed: Promise<void> = server.closed
  await closed
  const nothing: void = await server.close()
  // @ts-expect-error A port is a number.
  await startLocalDurableStreamsServer({ port: "80" })
  // @ts-expect-error There is no such option.
  await startLocalDurableStreamsServer({ nam: "a" })
  // @ts-expect-error A server's word stays as it is.
  server.exports = exports
  // @ts-expect-error A server has no such field.
  server.url
  return text + number + String(nothing)
}

export const read = (message: ReadyMessage): Internal => {
  const type: "ready" = message.type
  // @ts-expect-error There is one kind of message.
  const other: "gone" = message.type
  return { type, exports: message.exports ?? other }
}
