// The tests of the published clients; CLIENT_TESTS names one file of them. The
// timeouts are longer than the suite's because a test here starts, kills and
// restarts server processes; they bound a failure and are never waited for.
import { defineConfig } from "vitest/config"

export default defineConfig({
  test: {
    include: [`clients/${process.env.CLIENT_TESTS ?? "*"}.test.mjs`],
    fileParallelism: false,
    testTimeout: 60_000,
    hookTimeout: 60_000,
  },
})
