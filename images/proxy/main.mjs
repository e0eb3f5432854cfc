// Serves one target with configurable-http-proxy, and the proxy's API on the loopback interface.
//
// The proxy is used as a library, because its command line reads the API's token only from the environment, where
// `docker exec` and crash dumps show it, and has no option for a connection timeout.
import { readFileSync } from "node:fs";
import http from "node:http";
import ConfigurableProxy from "configurable-http-proxy";

const { PROXY_ADDRESS, PROXY_PORT, PROXY_API_PORT, PROXY_TARGET } = process.env;

const proxy = new ConfigurableProxy({
  authToken: readFileSync("/run/secrets/api-token", "utf8").trim(),
  defaultTarget: PROXY_TARGET,
  errorPath: "/opt/proxy/error",
  // Adds X-Forwarded headers with the client's address and the requested name, for the target's log.
  xfwd: true,
  // Milliseconds; longer than a kernel takes to start on a busy host. Websockets have no such limit.
  proxyTimeout: 60_000,
});
// The timeout of connecting, in milliseconds; afterwards proxyTimeout applies. Where a route drops packets, as
// Calico's does for a removed container, the error page would otherwise come after two minutes.
proxy.httpAgent = new http.Agent({ keepAlive: true, timeout: 5_000 });

proxy.proxyServer.listen(Number(PROXY_PORT), PROXY_ADDRESS);
proxy.apiServer.listen(Number(PROXY_API_PORT), "127.0.0.1");
