// configurable-http-proxy with notebooks that may be stopped, pages of its own, and connections that always end.
import http from "node:http";
import { finished } from "node:stream";
import ConfigurableProxy from "configurable-http-proxy";
import { deadPage, failedPage, send, startPage, stoppedPage, unknownPage } from "./pages.mjs";

/** Milliseconds to connect. Where a route drops packets, as Calico's does for a removed container, the kernel would
 * try for two minutes. */
const CONNECT_TIMEOUT = 5_000;
/** Milliseconds without a byte from a notebook that has been asked; longer than a kernel takes to start on a busy
 * host. An open websocket has no such limit. */
const ANSWER_TIMEOUT = 60_000;
/** Milliseconds of silence after which keepalive probes are sent; a peer that is gone is found ten seconds later. */
const KEEPALIVE = 30_000;
/** Milliseconds that one end of a websocket may take to close after the other. */
const LINGER = 5_000;
/** Milliseconds that the start page waits for notebooks, and keeps what it has found. */
const PROBE_TIMEOUT = 2_000;
const PROBE_AGE = 3_000;
/** Seconds that browsers use no HTTP for this name: 30 days, so that a lab can give HTTPS up. */
const STRICT_TRANSPORT = "max-age=2592000";

export class NotebookProxy extends ConfigurableProxy {
  /** @type {Map<string, import("./routes.mjs").Notebook>} The notebooks by the prefix of their route. */
  #notebooks = new Map();
  #startPage = false;
  #strictTransport;
  #states = { until: 0, found: undefined };

  /** @param {object} options Those of configurable-http-proxy, and `strictTransport`: whether to send HSTS. */
  constructor({ strictTransport, ...options }) {
    // xfwd adds X-Forwarded headers with the client's address and the requested name, for the notebook's log.
    super({ ...options, xfwd: true, proxyTimeout: ANSWER_TIMEOUT });
    this.#strictTransport = strictTransport;
    this.httpAgent = new http.Agent({ keepAlive: true, timeout: CONNECT_TIMEOUT });
    this.proxyServer.on("connection", (socket) => socket.setKeepAlive(true, KEEPALIVE));
    this.proxy.on("proxyReqWs", boundWebsocket);
    this.proxy.on("open", (upstream) => upstream.setKeepAlive(true, KEEPALIVE));
    // A notebook that goes away in the middle of an answer: the visitor would wait for the rest.
    this.proxy.on("proxyRes", (answer, _request, response) => {
      finished(answer, (error) => error && response.destroy());
    });
    // Errors of a client's websocket; without a listener http-proxy-3 throws them, which ends the process.
    this.proxy.on("error", (error, request) => this.log.warn("%s %s", request.url.split("?", 1)[0], error.message));
  }

  /**
   * Replaces the notebooks. Routes that stay are not touched.
   *
   * @param {{notebooks: import("./routes.mjs").Notebook[], startPage: boolean}} routes
   */
  async serve({ notebooks, startPage: hasStartPage }) {
    const served = new Map(notebooks.map((notebook) => [this._routes.cleanPath(notebook.path), notebook]));
    for (const prefix of this.#notebooks.keys()) if (!served.has(prefix)) await this.removeRoute(prefix);
    for (const [prefix, { target }] of served) {
      if (this.#notebooks.get(prefix)?.target !== target) await this.addRoute(prefix, { target });
    }
    this.#notebooks = served;
    this.#startPage = hasStartPage;
    this.#states.until = 0;
  }

  async targetForReq(request) {
    const match = await super.targetForReq(request);
    request.notebook = match && this.#notebooks.get(match.prefix);
    if (request.headers.cookie) request.headers.cookie = closest(request.headers.cookie);
    return request.notebook?.enabled === false ? undefined : match;
  }

  handleProxyWeb(request, response) {
    if (this.#strictTransport) response.setHeader("Strict-Transport-Security", STRICT_TRANSPORT);
    const isRead = request.method === "GET" || request.method === "HEAD";
    if (this.#startPage && isRead && request.url.split("?", 1)[0] === "/") {
      return this.#listed().then((notebooks) => send(request, response, 200, startPage(notebooks)));
    }
    return super.handleProxyWeb(request, response);
  }

  handleProxyError(code, kind, request, response, error) {
    // The visitor has left.
    if (response.destroyed) return;
    const stopped = request.notebook?.enabled === false;
    const malformed = error instanceof URIError || error?.code === "ERR_INVALID_URL";
    const status = stopped ? 503 : malformed ? 400 : code;
    // Without a response it only counts and logs.
    super.handleProxyError(status, kind, request, undefined, malformed ? undefined : error);
    if (kind === "ws") {
      refuseWebsocket(response, request.upgraded ? undefined : status);
    } else if (response.headersSent) {
      // So that a part of an answer is not taken for all of it.
      response.destroy();
    } else {
      send(request, response, status, this.#errorPage(status, request.notebook));
    }
  }

  #errorPage(status, notebook) {
    if (status === 503 && notebook) return notebook.enabled ? deadPage(notebook) : stoppedPage(notebook);
    return status === 404 ? unknownPage(this.#startPage) : failedPage(http.STATUS_CODES[status]);
  }

  /** The notebooks with their states. All visitors within `PROBE_AGE` share one probe of each notebook. */
  #listed() {
    if (Date.now() >= this.#states.until) {
      this.#states.until = Date.now() + PROBE_AGE;
      this.#states.found = Promise.all(
        [...this.#notebooks.values()].map(async ({ name, path, target, enabled }) => ({
          name,
          path,
          state: !enabled ? "stopped" : (await answers(`${target}${path}api`)) ? "on" : "dead",
        })),
      );
    }
    return this.#states.found;
  }
}

/**
 * The first cookie of each name. All notebooks give theirs the same names, and a visitor who is logged in at `/` sends
 * those along to `/alice/`, after those of `/alice/` (RFC 6265, section 5.4). Jupyter would take the last.
 */
function closest(cookies) {
  const seen = new Set();
  const isFirst = (cookie) => {
    const [name] = cookie.trim().split("=", 1);
    return !seen.has(name) && seen.add(name);
  };
  return cookies.split(";").filter(isFirst).join(";");
}

/** Whether a notebook answers. Jupyter's `/api` needs no token. */
function answers(url) {
  return new Promise((resolve) => {
    // The signal also ends a connection attempt and a slow answer.
    const request = http.get(url, { agent: false, signal: AbortSignal.timeout(PROBE_TIMEOUT) }, (answer) => {
      answer.destroy();
      resolve(answer.statusCode < 500);
    });
    request.on("error", () => resolve(false));
  });
}

/**
 * Bounds a websocket: http-proxy-3 has no timeouts before it is open, keeps the request to a notebook whose visitor has
 * left, and only half-closes the other end of one that closes.
 */
function boundWebsocket(proxied, request, client) {
  proxied.setTimeout(ANSWER_TIMEOUT, () => proxied.destroy());
  // Nobody reads from the visitor before the notebook has answered, and without reading there is no end.
  const look = () => client.readableLength === 0 && client.read();
  const leave = () => client.destroy();
  const abandon = () => proxied.destroy();
  client.on("readable", look).once("end", leave).once("close", abandon);
  proxied.once("upgrade", (_answer, upstream) => {
    request.upgraded = true;
    client.off("readable", look).off("end", leave).off("close", abandon);
    client.once("close", () => linger(upstream));
    upstream.once("close", () => linger(client));
  });
  // An answer without an upgrade, such as 403, is passed on; http-proxy-3 waits for its end for ever.
  proxied.once("response", (answer) => finished(answer, () => client.destroySoon()));
}

function linger(socket) {
  socket.end();
  socket.setTimeout(LINGER, () => socket.destroy());
}

function refuseWebsocket(socket, status) {
  if (!status) {
    socket.destroy();
    return;
  }
  if (socket.writable) {
    const reason = http.STATUS_CODES[status];
    socket.write(`HTTP/1.1 ${status} ${reason}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`);
  }
  linger(socket);
}
