/** How to start a local server. */
export interface LocalServerOptions {
  /**
   * Name of the server, and of the directory with its data: letters, digits, `.`, `_`, `-`, at most
   * 128 of them. Default `default`.
   */
  name?: string
  /** Loopback address to listen on, or `localhost`. Default `127.0.0.1`. */
  hostname?: string
  /** Port to listen on, 0 to 65535; 0, the default, takes a free one. */
  port?: number
}

/** What a running server says of itself. */
export interface LocalServerExports {
  http: { url: string; port: number }
  sqlite: { path: string }
  name: string
  pid: number
}

/** A running server. It ends when this process does, if it was not closed before. */
export interface LocalServer {
  readonly exports: LocalServerExports
  readonly name: string
  /** The process of the server. */
  readonly pid: number
  /** Resolves when the server has ended, for whatever reason. Asking for it keeps this process running until then. */
  readonly closed: Promise<void>
  /** Stops the server and resolves when it has. May be called more than once. */
  close(): Promise<void>
}

/**
 * Starts a server. Rejects with a `TypeError` if an option is none: nothing was started. Rejects with
 * an `Error` that says what is in the way otherwise: another server has the name, the port is taken,
 * the `weir` binary was not found, or what was found is none.
 */
export function startLocalDurableStreamsServer(options?: LocalServerOptions): Promise<LocalServer>
