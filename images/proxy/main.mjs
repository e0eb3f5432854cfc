// Serves the lab's notebooks by path with configurable-http-proxy, and the proxy's API on the loopback interface.
//
// The proxy is used as a library, because its command line reads the API's token only from the environment, where
// `docker exec` and crash dumps show it, and has no option for a connection timeout.
import { X509Certificate, createPrivateKey } from "node:crypto";
import { readFileSync } from "node:fs";
import { follow } from "./follow.mjs";
import { NotebookProxy } from "./proxy.mjs";
import { redirectServer } from "./redirect.mjs";
import { parseRoutes } from "./routes.mjs";

const CERTIFICATE = "/run/tls/tls.pem";
const ROUTES = "/run/routes/routes.json";
const LOOPBACK = "127.0.0.1";
const { PROXY_ADDRESS, PROXY_PORT, PROXY_API_PORT, PROXY_HTTPS, PROXY_HTTP_PORT, PROXY_METRICS_PORT } = process.env;

// One file has the key and the certificates, because one file is replaced in one step.
function secureContext(pem) {
  if (!new X509Certificate(pem).checkPrivateKey(createPrivateKey(pem))) {
    throw new Error("the key is not that of the certificate");
  }
  return { key: pem, cert: pem, minVersion: "TLSv1.2" };
}

const hasTls = PROXY_HTTPS !== "none";
const proxy = new NotebookProxy({
  authToken: readFileSync("/run/secrets/api-token", "utf8").trim(),
  enableMetrics: Boolean(PROXY_METRICS_PORT),
  ssl: hasTls && { ...secureContext(readFileSync(CERTIFICATE, "utf8")), handshakeTimeout: 10_000 },
  // Only with a certificate of the operator's own: a browser that trusts the lab's CA for now could not go back.
  strictTransport: PROXY_HTTPS === "own",
});

await follow(ROUTES, (text) => proxy.serve(parseRoutes(text)), proxy.log);
if (hasTls) {
  // New connections get the new certificate; those that are open stay.
  await follow(CERTIFICATE, (pem) => proxy.proxyServer.setSecureContext(secureContext(pem)), proxy.log);
  redirectServer(PROXY_ADDRESS, PROXY_PORT).listen(Number(PROXY_HTTP_PORT), PROXY_ADDRESS);
}
proxy.proxyServer.listen(Number(PROXY_PORT), PROXY_ADDRESS);
proxy.apiServer.listen(Number(PROXY_API_PORT), LOOPBACK);
proxy.metricsServer?.listen(Number(PROXY_METRICS_PORT), LOOPBACK);
