// The upstream suite with vitest's default timeouts: a server that needs more
// than those is not conformant.
import { defineConfig } from "vitest/config"

export default defineConfig({
  test: { include: ["suite/*.test.mjs"], fileParallelism: false },
})
