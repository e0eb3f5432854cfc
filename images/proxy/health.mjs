// Succeeds if the proxy itself answers; its targets have health checks of their own. Without fetch, which doubles the
// start time of Node: the check runs every ten seconds, and Docker kills a check that takes too long.
const { PROXY_ADDRESS, PROXY_PORT, PROXY_HTTPS } = process.env;
const scheme = PROXY_HTTPS === "none" ? "http" : "https";
const { get } = await import(`node:${scheme}`);
// The certificate is not checked: it may be for another name than the address, and the address is this host's own.
get(`${scheme}://${PROXY_ADDRESS}:${PROXY_PORT}/_chp_healthz`, { rejectUnauthorized: false }, ({ statusCode }) => {
  process.exit(statusCode === 200 ? 0 : 1);
});
