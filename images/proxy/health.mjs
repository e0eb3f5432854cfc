// Healthy: the proxy itself answers; what stands behind it has a health check of its own.
const { PROXY_ADDRESS, PROXY_PORT } = process.env;
const response = await fetch(`http://${PROXY_ADDRESS}:${PROXY_PORT}/_chp_healthz`, {
  signal: AbortSignal.timeout(2000),
});
process.exit(response.ok ? 0 : 1);
