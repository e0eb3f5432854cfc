// Succeeds if the proxy itself answers; its targets have health checks of their own. Without fetch, which doubles the
// start time of Node: the check runs every ten seconds, and Docker kills a check that takes too long.
import { get } from "node:http";

const { PROXY_ADDRESS, PROXY_PORT } = process.env;
get(`http://${PROXY_ADDRESS}:${PROXY_PORT}/_chp_healthz`, ({ statusCode }) => {
  process.exit(statusCode === 200 ? 0 : 1);
});
