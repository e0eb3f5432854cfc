// The server without TLS that sends visitors to the one with TLS.
import { createServer } from "node:http";

/**
 * @param {string} address Where a request without a usable Host header is sent.
 * @param {string} port The port of the server with TLS.
 */
export function redirectServer(address, port) {
  return createServer((request, response) => {
    const [host] = /^([a-z0-9.-]+|\[[0-9a-f:.]+\])(?=:\d+$|$)/i.exec(request.headers.host ?? "") ?? [address];
    const path = request.url.startsWith("/") ? request.url : "/";
    response.writeHead(308, {
      Location: `https://${host}:${port}${path}`,
      // The operator may switch HTTPS off again.
      "Cache-Control": "no-store",
    });
    response.end();
  });
}
