// Healthy: the proxy itself answers; what stands behind it has a health check of its own. Not by fetch, which
// takes as long to load as all of Node: that would be every ten seconds, and too long on a slow machine. Docker
// ends a check that takes too long.
import { get } from "node:http";

const { PROXY_ADDRESS, PROXY_PORT } = process.env;
get(`http://${PROXY_ADDRESS}:${PROXY_PORT}/_chp_healthz`, ({ statusCode }) => {
  process.exit(statusCode === 200 ? 0 : 1);
});
