// The proxy's own pages. They load nothing, run no script, and work without the notebooks.
import { createHash } from "node:crypto";

const STYLE = `
:root { color-scheme: light dark; }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 42rem; margin: 0 auto; padding: 2rem 1rem; }
h1 { font-size: 1.6rem; line-height: 1.25; }
code { font-size: .95em; overflow-wrap: anywhere; }
a:focus-visible { outline: 3px solid; outline-offset: 3px; }
ul.notebooks { list-style: none; padding: 0; }
ul.notebooks li { display: flex; flex-wrap: wrap; justify-content: space-between; gap: .25rem 1rem;
  border-bottom: 1px solid color-mix(in srgb, currentColor 25%, transparent); }
ul.notebooks li > * { padding: .7rem 0; }
ul.notebooks a { flex: 1 1 10rem; font-weight: 600; overflow-wrap: anywhere; }
`;
const HEADERS = {
  "Content-Type": "text/html; charset=utf-8",
  "Content-Security-Policy":
    `default-src 'none'; style-src 'sha256-${createHash("sha256").update(STYLE).digest("base64")}'; ` +
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  "X-Content-Type-Options": "nosniff",
  "Referrer-Policy": "no-referrer",
  "Cache-Control": "no-store",
};
const STATES = { on: "on", stopped: "stopped", dead: "does not answer" };
/** Seconds. A notebook that is starting answers within seconds. */
const RELOAD = 5;

/** The name of the lab's original notebook. */
const ORIGINAL = "notebook";

const called = (name) => (name === ORIGINAL ? "The notebook" : `The notebook ${name}`);
const escaped = (text) => text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);

/**
 * Sends a page.
 *
 * @param {import("node:http").IncomingMessage} request
 * @param {import("node:http").ServerResponse} response
 * @param {number} status
 * @param {{title: string, body: string, reload?: number}} page `reload` in seconds.
 */
export function send(request, response, status, { title, body, reload }) {
  const html = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
${reload ? `<meta http-equiv="refresh" content="${reload}">\n` : ""}<title>${escaped(title)}</title>
<style>${STYLE}</style>
</head>
<body>
<main>
<h1>${escaped(title)}</h1>
${body}
</main>
</body>
</html>
`;
  response.writeHead(status, { ...HEADERS, "Content-Length": Buffer.byteLength(html) });
  response.end(request.method === "HEAD" ? undefined : html);
}

/**
 * The start page.
 *
 * @param {{name: string, path: string, state: "on" | "stopped" | "dead"}[]} notebooks
 */
export function startPage(notebooks) {
  const items = notebooks.map(
    ({ name, path, state }) =>
      // Jupyter's page is named, because the path of the original notebook is that of this page.
      `<li><a href="${escaped(encodeURI(path))}lab">${escaped(name)}</a> <span>${STATES[state]}</span></li>`,
  );
  return {
    title: "Notebooks",
    body: items.length
      ? `<p>Choose your notebook. It asks for the token that your teacher has given you.</p>
<ul class="notebooks">
${items.join("\n")}
</ul>`
      : "<p>There is no notebook yet.</p>",
  };
}

/** @param {import("./routes.mjs").Notebook} notebook */
export function stoppedPage({ name, host }) {
  return {
    title: `${called(name)} is stopped`,
    body: `<p>It is switched off in the lab's config. Its work is kept, on host <code>${escaped(host)}</code>.</p>
<p>If you need it, ask your teacher or the lab's operator. On the controller, where <code>pulumi</code> runs:</p>
<ol>
<li>Write <code>enabled: true</code> for <code>${escaped(name)}</code> into the config.</li>
<li><code>pulumi up</code> starts it again; <code>lab class</code> shows its state.</li>
</ol>`,
  };
}

/** @param {import("./routes.mjs").Notebook} notebook */
export function deadPage({ name, host }) {
  const container = name === ORIGINAL ? "calico-lab-notebook" : `calico-lab-notebook-${name}`;
  return {
    title: `${called(name)} does not answer`,
    reload: RELOAD,
    body: `<p>The proxy works; the notebook <code>${escaped(name)}</code> on host <code>${escaped(host)}</code> does not
answer. If it has just been started, it will answer within seconds; this page reloads every five seconds.</p>
<p>If it still does not answer, tell your teacher or the lab's operator the two names above. What to check, in this
order, on the controller (where <code>pulumi</code> runs):</p>
<ol>
<li><code>lab status</code> names the parts of the lab that are not healthy, and <code>lab class</code> the state of each
notebook.</li>
<li>The notebook's container, on <code>${escaped(host)}</code>: <code>docker ps --all</code> shows whether it runs, and
<code>docker logs ${escaped(container)}</code> why it does not.</li>
<li>The route to it, on the proxy's host: <code>ip route</code> must show the notebook's network with
<code>proto bird</code>. If it does not, the BGP session between the two hosts is down.</li>
<li>A firewall policy of the lab on either host: <code>lab status</code> lists the active ones.</li>
</ol>`,
  };
}

/** @param {boolean} hasStartPage */
export function unknownPage(hasStartPage) {
  return {
    title: "There is no notebook at this address",
    body: hasStartPage
      ? '<p>The <a href="/">list of notebooks</a> has the addresses.</p>'
      : "<p>Check the address. On the controller, <code>pulumi stack output</code> prints it.</p>",
  };
}

/** @param {string} reason The standard text of the status. */
export function failedPage(reason) {
  return { title: reason, body: "<p>The proxy could not handle this request.</p>" };
}
