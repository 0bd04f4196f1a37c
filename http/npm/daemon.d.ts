// A program, not a module to import: `node daemon.js [NAME] [--name NAME] [--hostname ADDRESS]
// [--port PORT]`, or `--help`. Each argument is the option of `LocalServerOptions` of its name, with
// the same default; NAME is `--name`. What the forked program says is below.
import type { LocalServerExports } from "./index.js"

/** What a forked daemon sends its parent once it serves. */
export interface ReadyMessage {
  type: "ready"
  exports: LocalServerExports
}
