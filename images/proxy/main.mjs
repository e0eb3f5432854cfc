// Serves one target through configurable-http-proxy, and the proxy's API on the loopback interface.
//
// The proxy is used as a library: its command line takes the API's token from nowhere but the environment,
// where `docker exec` and a crash dump show it, and has no limit for the time that a connection takes.
import { readFileSync } from "node:fs";
import http from "node:http";
import ConfigurableProxy from "configurable-http-proxy";

const { PROXY_ADDRESS, PROXY_PORT, PROXY_API_PORT, PROXY_TARGET } = process.env;

const proxy = new ConfigurableProxy({
  authToken: readFileSync("/run/secrets/api-token", "utf8").trim(),
  defaultTarget: PROXY_TARGET,
  errorPath: "/opt/proxy/error",
  // The client's address and the name it used, for the target's log.
  xfwd: true,
  // Longer than a kernel takes to start on a busy host; websockets are not concerned.
  proxyTimeout: 60_000,
});
// A route that drops packets, as Calico's does for a container that is gone, would hold a reader for two minutes
// before the error page. A new connection has this long; once it stands, proxyTimeout counts.
proxy.httpAgent = new http.Agent({ keepAlive: true, timeout: 5_000 });

proxy.proxyServer.listen(Number(PROXY_PORT), PROXY_ADDRESS);
proxy.apiServer.listen(Number(PROXY_API_PORT), "127.0.0.1");
