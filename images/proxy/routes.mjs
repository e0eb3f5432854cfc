// The format of routes.json.

/**
 * @typedef {object} Notebook
 * @property {string} name
 * @property {string} path Its URL path; begins and ends with a slash.
 * @property {string} target The URL, without a path, at which it listens.
 * @property {string} host The host that runs it, for the error page.
 * @property {boolean} enabled
 */

/**
 * Parses the text of routes.json: `{"notebooks": [...], "startPage": true}`.
 *
 * @param {string} text
 * @returns {{notebooks: Notebook[], startPage: boolean}}
 */
export function parseRoutes(text) {
  const { notebooks, startPage } = JSON.parse(text);
  if (!Array.isArray(notebooks) || typeof startPage !== "boolean") {
    throw new Error("must have a list 'notebooks' and a boolean 'startPage'");
  }
  const paths = new Set();
  for (const { name, path, target, host, enabled } of notebooks) {
    if (![name, path, target, host].every((value) => typeof value === "string") || typeof enabled !== "boolean") {
      throw new Error(`notebook ${name}: must have texts 'name', 'path', 'target', 'host' and a boolean 'enabled'`);
    }
    if (!/^\/([^/]+\/)*$/.test(path)) throw new Error(`notebook ${name}: path ${path} must begin and end with '/'`);
    if (paths.has(path)) throw new Error(`notebook ${name}: path ${path} is taken already`);
    if (URL.parse(target)?.protocol !== "http:") throw new Error(`notebook ${name}: target ${target} must be an http URL`);
    paths.add(path);
  }
  return { notebooks, startPage };
}
