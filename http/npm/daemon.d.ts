import type { LocalServerExports } from "./index.js"

/** What a forked daemon sends its parent once it serves. */
export interface ReadyMessage {
  type: "ready"
  exports: LocalServerExports
}
