// Finds the `weir` binary: `WEIR_BINARY`, or one beside this package, or one on PATH. What somebody
// names goes before what was shipped, and that before what happens to be on the machine.
import { accessSync, constants, statSync } from "node:fs"
import { basename, delimiter, dirname, join } from "node:path"
import { fileURLToPath } from "node:url"

const here = dirname(fileURLToPath(import.meta.url))
const file = process.platform === "win32" ? "weir.exe" : "weir"

const runs = (path) => {
  try {
    accessSync(path, constants.X_OK)
    return statSync(path).isFile()
  } catch {
    return false
  }
}

/** The path of the binary. Throws an error that says where it was looked for. */
export function findBinary(environment = process.env) {
  const given = environment.WEIR_BINARY?.trim()
  if (given) {
    if (runs(given)) return given
    throw new Error(`WEIR_BINARY names no program: ${given}`)
  }
  // Shipped with the package for this platform, or for it alone, or built in its repository.
  const platform = `${process.platform}-${process.arch}`
  const beside = [
    join(here, "bin", platform, file),
    join(here, "bin", file),
  ]
  // Installed as a dependency, the same path would be in somebody else's project.
  if (basename(here) === "npm" && basename(dirname(here)) === "http") {
    beside.push(join(here, "..", "..", "target", "release", file))
  }
  const path = (environment.PATH ?? "").split(delimiter).filter(Boolean).map((dir) => join(dir, file))
  const found = [...beside, ...path].find(runs)
  if (found) return found
  throw new Error(
    `the weir binary was not found: set WEIR_BINARY, or put it on PATH, or in ${join(here, "bin")}`
  )
}
