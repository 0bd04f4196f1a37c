// The upstream suite, unchanged, against the server at CONFORMANCE_TEST_URL.
// The package's own command line finds no test files when installed from npm,
// so the suite is run through its one exported function.
import { runConformanceTests } from "@durable-streams/server-conformance-tests"

const baseUrl = process.env.CONFORMANCE_TEST_URL
if (!baseUrl) {
  throw new Error("set CONFORMANCE_TEST_URL to the address of a running server")
}

runConformanceTests({ baseUrl, subscriptions: true })
